"""A person's jobs, from the form to their end, through the whole stack."""

from __future__ import annotations

import base64
import hashlib
import json

from playwright.sync_api import expect

from aiida_byoc.contracts.receipt.__main__ import main as verify_receipt
from tests.page.reader import JOB_MILLISECONDS

STEPS = "for i in 1 2 3 4 5 6; do echo step $i; sleep 1; done; echo 42 > answer.txt"
LONG = ("sh", "-c", "echo begun; sleep 120")


def test_a_job_is_submitted_and_watched_to_its_end(acme):
    page = acme.page
    page.get_by_role("link", name="New job").click()
    page.get_by_label("Name of the job").fill("watched-1")
    page.get_by_label("Workspace").fill("alloys")
    page.get_by_label("Queue name").fill(acme.lab["queue_name"])
    page.get_by_label("Image", exact=True).fill(acme.lab["images"][0]["ref"])
    page.get_by_label("Argv 1", exact=True).fill("sh")
    for number, word in ((2, "-c"), (3, STEPS)):
        page.get_by_role("button", name="Add to argv").click()
        page.get_by_label(f"Argv {number}", exact=True).fill(word)
    page.get_by_text("Checkpoint, Env, Inputs").click()
    page.get_by_role("button", name="Add to outputs").click()
    page.get_by_role("group", name="Outputs 1").get_by_label("Name", exact=True).fill("answer.txt")
    acme.picture("submit-light")
    page.get_by_role("button", name="Submit job").click()

    expect(page.get_by_role("heading", name="watched-1")).to_be_visible()
    log = page.get_by_label("stdout of watched-1")
    expect(log).to_contain_text("step 1", timeout=JOB_MILLISECONDS)
    assert acme.state().inner_text() == "running", "the log came only after the end"
    acme.awaits("succeeded")
    expect(log).to_contain_text("step 6")
    expect(page.get_by_text("Complete", exact=True)).to_be_visible()
    digest = hashlib.sha256(b"42\n").hexdigest()
    expect(acme.panel("Outputs").get_by_role("row", name="answer.txt")).to_contain_text(digest)
    expect(acme.panel("Attempts").get_by_role("listitem")).to_have_count(1)
    states = acme.panel("Timeline").locator(".state").all_inner_texts()
    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert "running" in states
    acme.picture("job-light")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download receipt").click()
    receipt = json.loads(download.value.path().read_text())
    assert digest in base64.b64decode(receipt["payload"]).decode()
    file = download.value.suggested_filename
    expect(acme.panel("Provenance receipt")).to_contain_text(f"verify-receipt {file}")
    with page.expect_download() as keys:
        page.get_by_role("button", name="Download the node's keys").click()
    checked = ["verify", str(download.value.path()), "--keys", str(keys.value.path())]
    assert verify_receipt([*checked, "--job", "watched-1"]) == 0

    page.get_by_role("link", name="Submit again").click()
    expect(page.get_by_label("Argv 3", exact=True)).to_have_value(STEPS)
    expect(page.get_by_label("Workspace")).to_have_value("alloys")

    acme.go("jobs")
    expect(page.get_by_role("row", name="watched-1")).to_contain_text("1 output")
    acme.go("usage")
    expect(page.get_by_role("row", name="alloys")).to_contain_text("100 %")


def test_a_running_job_is_cancelled(acme):
    job_id = acme.submit(*LONG, name="cancelled")
    page = acme.page
    acme.go("jobs", job_id)
    acme.awaits("running")

    page.get_by_role("button", name="Cancel job").click()
    dialog = page.get_by_role("dialog", name=f"Cancel {job_id}?")
    dialog.get_by_role("button", name="Keep it as it is").click()
    expect(dialog).to_be_hidden()
    assert acme.state().inner_text() == "running"
    page.get_by_role("button", name="Cancel job").click()
    dialog.get_by_role("button", name="Cancel the job").click()

    acme.awaits("cancelled")
    expect(page.get_by_role("button", name="Cancel job")).to_be_hidden()
    expect(page.locator("[aria-live]", has_text=f"{job_id} is now cancelled")).to_have_count(1)


def test_a_failed_job_says_why_and_what_helps(acme):
    job_id = acme.submit("sh", "-c", "echo no luck >&2; exit 3", name="fails")
    page = acme.page
    acme.go("jobs", job_id)
    acme.awaits("failed")

    reason = page.locator(".reason")
    expect(reason).to_contain_text("container_failed")
    expect(reason).to_contain_text("Read the program's output, correct the program or its inputs")
    page.get_by_label("Stream").select_option("stderr")
    expect(page.get_by_label(f"stderr of {job_id}")).to_contain_text("no luck")
    expect(acme.panel("Attempts").get_by_role("listitem")).to_contain_text("container_failed")
    acme.picture("failed-light")
    acme.go("jobs", query="?state=failed")
    expect(page.get_by_role("row", name=job_id)).to_contain_text("container_failed")


def test_a_job_whose_node_is_away_says_so(acme):
    acme.declare_node("far-away")
    job_id = acme.submit("true", name="waits", node_id="far-away")
    page = acme.page
    acme.go("jobs", job_id)

    commands = page.get_by_role("list", name="Commands")
    expect(commands).to_contain_text("tried", timeout=JOB_MILLISECONDS)
    expect(page.locator(".reason")).to_contain_text("Its node is offline, since")
    expect(acme.panel("Attempts")).to_contain_text("No attempt yet")
    acme.picture("pending-light")
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("button", name="Cancel the job").click()
    acme.awaits("cancelled")


def test_another_tenant_sees_nothing(desk, acme):
    job_id = acme.submit("true", name="ours")
    acme.go("jobs", job_id)
    acme.awaits("succeeded")
    globex = desk.reader(1)
    page = globex.page

    expect(page.get_by_text("No jobs yet")).to_be_visible()
    globex.go("usage")
    expect(page.get_by_text("Nothing was used in this time")).to_be_visible()
    refusals = []
    for place in (
        "acme/jobs",
        f"acme/jobs/{job_id}",
        "acme/jobs/never-was",
        f"globex/jobs/{job_id}",
    ):
        page.evaluate("where => { location.hash = where }", f"#/{place}")
        alert = page.get_by_role("main").get_by_role("alert")
        expect(alert.first).to_contain_text("There is no such tenant")
        refusals.append(alert.first.inner_text())
        assert "succeeded" not in page.get_by_role("main").inner_text()
    assert len(set(refusals)) == 1, "what is missing and what is others' must look alike"
