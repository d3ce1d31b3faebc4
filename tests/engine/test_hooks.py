"""State and event are one commit, whoever changes the state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiida.orm import CalcJobNode, load_node

WITNESS = """
CREATE TABLE witness (what text, state text, xid xid8);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_table_name = 'event' THEN
        INSERT INTO witness VALUES (new.submission_id::text, new.body #>> '{data,state}', pg_current_xact_id());
    ELSE
        INSERT INTO witness VALUES (new.label, new.attributes ->> 'process_state', pg_current_xact_id());
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER witness AFTER INSERT ON byoc.event FOR EACH ROW EXECUTE FUNCTION witness();
CREATE TRIGGER witness AFTER UPDATE OF attributes ON db_dbnode FOR EACH ROW
    WHEN (old.attributes ->> 'process_state' IS DISTINCT FROM new.attributes ->> 'process_state')
    EXECUTE FUNCTION witness();
"""


@pytest.fixture
def witness(node: Any) -> Iterator[None]:
    """The database itself writes down which transaction changed a state and which wrote an event."""
    node.alter(WITNESS)
    yield
    node.alter("DROP FUNCTION witness CASCADE; DROP TABLE witness")


@pytest.mark.usefixtures("witness")
def test_the_end_and_its_event_are_one_transaction(node: Any) -> None:
    """Nobody can ever see the work chain `finished` and the job not `succeeded`, or the reverse."""
    submission = node.accept()

    node.run(submission)

    seen = dict(
        node.connection.execute(
            "SELECT what, xid FROM witness WHERE (what, state) IN ((%s, 'finished'), (%s, 'succeeded'))",
            (f"byoc:{submission}", submission),
        ).fetchall()
    )
    assert len(seen) == 2
    assert seen[f"byoc:{submission}"] == seen[submission]


def test_an_event_that_cannot_be_written_takes_the_state_back(node: Any) -> None:
    """Without its event the job does not count as finished; what ends it is told."""
    node.alter(
        "ALTER TABLE byoc.event ADD CONSTRAINT no_success CHECK (body #>> '{data,state}' <> 'succeeded') NOT VALID"
    )
    try:
        submission = node.accept()
        chain = node.run(submission)
    finally:
        node.alter("ALTER TABLE byoc.event DROP CONSTRAINT no_success")

    assert chain.is_excepted
    assert node.states(submission)[-1] == "failed"


def test_a_pause_is_held_and_play_resumes(node: Any) -> None:
    """A paused process needs attention: the event says so, and playing it takes the job back."""
    submission = node.accept()
    process = node.load(node.launch(submission))

    process.pause("the cluster is being repaired")
    held = node.events(submission)[-1]
    process.play()

    assert (held["state"], held["reason"]) == ("held", "the cluster is being repaired")
    assert node.states(submission)[-1] == "launched"
    node.runner.loop.run_until_complete(process.step_until_terminated())
    assert node.states(submission)[-1] == "succeeded"


def test_a_kill_is_cancelled(node: Any) -> None:
    """Whoever kills the work chain, the job is told as cancelled."""
    submission = node.accept()
    process = node.load(node.launch(submission))

    process.kill("enough")

    assert node.states(submission) == ["accepted", "launched", "cancelled"]


def test_an_exception_is_a_failure_that_may_be_retried(node: Any) -> None:
    """What breaks inside AiiDA ends the job with a code, not in silence."""
    submission = node.accept()
    pk = node.launch(submission)
    process = node.load(pk)
    node.connection.execute("UPDATE db_dbnode SET label = 'gone' WHERE label = 'byoc-in-job'")
    try:
        node.runner.loop.run_until_complete(process.step_until_terminated())
    finally:
        node.connection.execute("UPDATE db_dbnode SET label = 'byoc-in-job' WHERE label = 'gone'")

    assert load_node(pk).is_excepted
    last = node.events(submission)[-1]
    assert (last["state"], last["error"]["code"], last["error"]["retryable"]) == (
        "failed",
        "execution_failed",
        True,
    )


def test_a_step_that_runs_again_takes_up_its_child(node: Any) -> None:
    """After a crash between submitting the attempt and the checkpoint there is still one attempt."""
    submission = node.accept()
    process = node.load(node.launch(submission))
    with process._process_scope():
        process.setup()
        process.unpack_image()
        first = process.run_process()
        process.ctx.iteration = 0  # what the checkpoint before the step remembers
        second = process.run_process()

    assert len(process.node.called) == 1
    assert isinstance(process.node.called[0], CalcJobNode)
    assert _children(first) == _children(second) == [process.node.called[0].pk]
    process.kill("enough")


def _children(context: Any) -> list[int]:
    awaitable = context["children"]
    return [getattr(awaitable, "pk", None) or awaitable.target.pk]
