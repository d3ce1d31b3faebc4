"""What a running job reports of itself reaches its user while it runs."""

from __future__ import annotations

from typing import Any

from lab.process import wait_until

REPORT = """echo '{"fraction": %s, "message": "step %s", "metrics": {"energy/eV": -1.5}}' >> "$BYOC_PROGRESS";"""


def test_progress_is_seen_in_the_projection_while_the_job_runs(acme: Any) -> None:
    """And the newest of all with the job's end, whatever the node had no time to tell."""
    script = f"{REPORT % (0.5, 1)} sleep 5; {REPORT % (1, 2)}"
    command = acme.command("sh", "-c", script)
    acme.submit(command)

    def shown() -> dict[str, Any] | None:
        seen = acme.projection(command["job_id"])
        return seen if "progress" in seen else None

    running = wait_until(shown, 60, "progress to be shown")
    ended = acme.wait(command["job_id"])
    view = acme.http.get(f"{acme.jobs}/{command['job_id']}").json()

    assert running is not None
    assert running["state"] == "running"
    told = {"fraction": 0.5, "message": "step 1", "metrics": {"energy/eV": -1.5}}
    assert {**told, "reported_at": running["progress"]["reported_at"]} == running["progress"]
    assert (ended["state"], ended["progress"]["fraction"]) == ("succeeded", 1)
    assert ended["progress"]["reported_at"] > running["progress"]["reported_at"]
    assert view["job"]["progress"] == ended["progress"]
