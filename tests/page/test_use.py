"""How the page is used: by keyboard alone, in the dark, with thousands of jobs, with mistakes, by everybody."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import expect

from tests.page.jobs import MANY, seed_jobs
from tests.page.reader import AXE


def test_a_job_is_submitted_by_keyboard_alone(acme):
    page, keys = acme.page, acme.page.keyboard
    page.reload()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()

    def tab_to(name: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            if acme.focused() == name:
                return
        pytest.fail(f"{name} is not reached by Tab; last was {acme.focused()}")

    keys.press("Tab")
    assert acme.focused() == "Skip to content"
    tab_to("New job")
    keys.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to("Workspace")
    keys.type(acme.tenant["workspace_id"])
    tab_to("Name of the job")
    keys.type("by-keyboard")
    tab_to("Queue name")
    keys.type(acme.lab["queue_name"])
    tab_to("Image")
    keys.press("Enter")

    # Nothing is sent with a mistake in it, and the way to the mistake is one key.
    expect(page.get_by_role("alert")).to_contain_text("workload.image is needed")
    tab_to("workload.image is needed")
    keys.press("Enter")
    assert acme.focused() == "Image"
    keys.type(acme.lab["images"][0]["ref"])
    tab_to("Argv 1")
    keys.type("true")
    keys.press("Enter")

    expect(page.get_by_role("heading", name="by-keyboard")).to_be_visible()
    acme.awaits("succeeded")
    tab_to("Jobs")
    keys.press("Enter")
    expect(page.get_by_role("row", name="by-keyboard")).to_be_visible()
    tab_to("by-keyboard")
    keys.press("ArrowDown")
    keys.press("ArrowUp")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="by-keyboard")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_every_page(desk, scheme):
    """axe-core finds no fault: names, roles, contrast, order."""
    reader = desk.reader(0, sign_in=False, color_scheme=scheme)
    axe = AXE.read_text()
    found = {}

    def look(name: str) -> None:
        reader.page.evaluate(axe)
        result = reader.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found[name] = [
            (each["id"], [node["html"] for node in each["nodes"]]) for each in result["violations"]
        ]

    expect(reader.page.get_by_role("main")).to_be_visible()
    look("sign in")
    reader.sign_in()
    job_id = reader.submit("true", name="looked-at")
    expect(reader.page.get_by_role("row", name=job_id)).to_be_visible()
    look("jobs")
    reader.picture(f"jobs-{scheme}")
    reader.go("jobs", job_id)
    expect(reader.panel("Facts")).to_be_visible()
    look("job")
    reader.page.get_by_role("link", name="Submit again").click()
    expect(reader.page.get_by_role("button", name="Submit job")).to_be_visible()
    look("submit")
    reader.go("usage")
    expect(reader.page.get_by_role("row").nth(1)).to_be_visible()
    look("usage")
    reader.go("nodes")
    expect(reader.page.get_by_text("online")).to_be_visible()
    look("nodes")
    reader.picture(f"nodes-{scheme}")
    reader.page.get_by_role("button", name="Enrol a node").click()
    look("enrol")

    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_narrow_screen_shows_all_without_scrolling_sideways(desk):
    """At 320 CSS pixels (WCAG 2.2, 1.4.10 Reflow) nothing is wider than the screen, but what scrolls by itself."""
    reader = desk.reader(0, viewport={"width": 320, "height": 700})
    page, wide = reader.page, {}

    def look(name: str) -> None:
        wide[name] = page.evaluate("""Math.max(
            ...["html", "main", ".panel", "dialog"].flatMap((part) => [...document.querySelectorAll(part)]).map(
                (each) => each.getBoundingClientRect().left + each.scrollWidth))""")
        reader.picture(f"{name}-narrow")

    job_id = reader.submit("true", name="in-the-hand")
    expect(page.get_by_role("row", name=job_id)).to_be_visible()
    look("jobs")
    reader.go("jobs", job_id)
    reader.awaits("succeeded")
    look("job")
    page.get_by_role("link", name="Submit again").click()
    expect(page.get_by_role("button", name="Submit job")).to_be_visible()
    look("submit")
    reader.go("usage")
    expect(page.get_by_role("row").nth(1)).to_be_visible()
    look("usage")
    reader.go("nodes")
    expect(page.get_by_text("online")).to_be_visible()
    look("nodes")
    page.get_by_role("button", name="Enrol a node").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    look("enrol")

    assert {name: width for name, width in wide.items() if width > 320} == {}


def test_dark_and_light_follow_the_system_until_the_reader_chooses(desk):
    page = desk.reader(0, color_scheme="dark").page

    def ground() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert ground() < 3 * 60
    page.get_by_label("Theme").select_option("light")
    assert ground() > 3 * 200
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("light")
    assert ground() > 3 * 200
    page.get_by_label("Theme").select_option("system")
    assert ground() < 3 * 60


def test_a_node_is_enrolled_with_a_command_to_copy(acme):
    page = acme.page
    acme.go("nodes")
    page.get_by_role("button", name="Enrol a node").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the node").fill("two words")
    dialog.get_by_role("button", name="Make a token").click()
    expect(dialog).to_contain_text("node_id must be")
    dialog.get_by_label("Name of the node").fill("cluster-7")
    dialog.get_by_role("button", name="Make a token").click()

    command = f"verdi data byoc node enroll --url {acme.lab['adapter']['url']}"
    expect(dialog).to_contain_text(command)
    token = dialog.get_by_text("byoc1.cluster-7.").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog.get_by_role("button", name="Copy the token").click()
    expect(dialog.get_by_role("button", name="Copy the token")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == token
    acme.picture("enrol-light")
    dialog.get_by_role("button", name="Done").click()
    card = page.get_by_role("article", name="cluster-7")
    expect(card).to_contain_text("enrolling")
    assert token not in page.content()


def test_filters_stand_in_the_address(acme):
    page = acme.page
    job_id = acme.submit("true", name="findable")
    expect(page.get_by_role("row", name=job_id)).to_be_visible()
    page.get_by_label("State").select_option("attention")
    expect(page.get_by_text("No job fits these filters")).to_be_visible()
    assert "state=attention" in page.url
    page.get_by_role("link", name="Show all jobs").click()
    page.get_by_role("searchbox", name="Search").fill(job_id)
    expect(page.get_by_role("row", name=job_id)).to_be_visible()
    page.wait_for_url("**text=findable*")
    page.reload()
    expect(page.get_by_role("searchbox", name="Search")).to_have_value(job_id)
    expect(page.get_by_role("row", name=job_id)).to_be_visible()


def test_ten_thousand_jobs_stay_usable(desk, lab):
    reader = desk.reader(0)
    tenant = seed_jobs(lab, reader.tenant)
    page = reader.page
    page.reload()
    page.get_by_label("Tenant").select_option(tenant)
    body = page.locator(".table-body")
    foot = page.locator(".table-foot")
    expect(foot).to_contain_text("100 jobs so far")

    deadline = time.monotonic() + 120
    while "so far" in foot.inner_text():
        assert time.monotonic() < deadline, f"after two minutes of scrolling: {foot.inner_text()}"
        body.evaluate("box => { box.scrollTop = box.scrollHeight }")
        assert page.get_by_role("row").count() < 100, "rows off the screen are in the document"
    expect(foot).to_have_text(f"{MANY:,} jobs")

    # How long the page takes to show another part of the list, in ms, from the scroll to the frame with the new rows.
    jump = """async box => {
        const took = [];
        for (const part of [0.1, 0.9, 0.5, 0.3, 0.7]) {
            const start = performance.now();
            box.scrollTop = box.scrollHeight * part;
            await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
            took.push(performance.now() - start);
        }
        return took;
    }"""
    took = sorted(body.evaluate(jump))
    assert took[2] < 300, f"a jump in the list takes {json.dumps(took)} ms"
    expect(page.get_by_role("row", name=f"seeded-{int(MANY * 0.3):05}")).to_be_visible()
