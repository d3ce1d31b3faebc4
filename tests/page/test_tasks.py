"""An array on the page: how many of its tasks are how far, which failed, what they wrote, and stopping some of them."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.page.reader import JOB_MILLISECONDS

SCRIPT = 'echo "this is $1"; case $1 in waits) sleep 300 ;; bad) echo "no good" >&2; exit 3 ;; esac'
ARGV = ("sh", "-c", SCRIPT, "sh", "{value}")


def test_the_tasks_of_an_array_are_watched_to_their_end(acme):
    """Live: a failed task is counted while others run; those are cancelled here, and the end tells which failed."""
    page = acme.page
    rows = [["good"], ["bad"], ["good"], ["waits"]]
    job_id = acme.submit(*ARGV, name="scan", rows=rows)
    acme.go("jobs")
    row = page.get_by_role("row", name=job_id)
    bar = row.get_by_role("progressbar", name="Tasks")
    expect(bar).to_have_attribute("aria-valuenow", "3", timeout=JOB_MILLISECONDS)
    expect(bar).to_have_attribute("aria-valuemax", "4")
    expect(row).to_contain_text("2 of 4 tasks done · 1 failed")

    acme.go("jobs", job_id)
    tasks = acme.panel("Tasks")
    expect(tasks.get_by_role("progressbar", name="Tasks")).to_have_attribute("aria-valuenow", "3")
    expect(tasks).to_contain_text("failed of late: 1")
    expect(acme.panel("Log")).to_contain_text("Choose a task")
    page.get_by_label("Number of the task").fill("3")
    expect(page.get_by_label(f"stdout of task 3 of {job_id}")).to_contain_text("this is waits")
    acme.picture("tasks-light")
    form = tasks.get_by_role("form", name="Cancel tasks")
    form.get_by_label("First task").fill("3")
    form.get_by_label("Last task").fill("3")
    form.get_by_role("button", name="Cancel tasks").click()
    expect(form.get_by_role("status")).to_have_text("Asked to cancel the tasks 3 to 3")

    acme.awaits("failed")
    expect(tasks).to_contain_text("2 of 4 tasks done · 1 failed · 1 cancelled")
    expect(form).to_be_hidden()
    failed = tasks.get_by_role("table", name="Tasks that failed").get_by_role("row")
    expect(failed).to_have_count(2)
    expect(failed.nth(1)).to_contain_text(re.compile("1.*failed.*3.*no good"))
    failed.nth(1).get_by_role("button", name="Log of task 1").click()
    expect(page.get_by_label("Number of the task")).to_have_value("1")
    expect(page.get_by_label(f"stdout of task 1 of {job_id}")).to_contain_text("this is bad")
    page.get_by_label("Stream").select_option("stderr")
    expect(page.get_by_label(f"stderr of task 1 of {job_id}")).to_contain_text("no good")
    expect(acme.panel("Log")).to_contain_text("Complete")
