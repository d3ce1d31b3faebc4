"""Commands in, verdicts out. The verdict leaves only after the ledger has committed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TypeAlias

import psycopg

from aiida_byoc.agent.keys import private_key
from aiida_byoc.commands import ledger, signatures
from aiida_byoc.commands.ledger import Asked
from aiida_byoc.commands.placement import Placement, WorkchainPlacement
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.delivery import Command, JobAcceptance, Verdict
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.validation import validated
from aiida_byoc.node import NodeSettings, SettingsError
from aiida_byoc.receipts.issue import issue_for_wire
from aiida_byoc.runtimes.images import ImageStore

__all__ = ["check_signature", "decide", "decide_all", "judged", "policy_of"]

_LOGGER = logging.getLogger(__name__)

_Answer: TypeAlias = tuple[JobAcceptance, bool] | Exception
"""The acceptance and whether it is a replay, or why there is none."""


def decide(connection: psycopg.Connection, settings: NodeSettings, command: Command) -> Verdict:
    """Carry out one command, trusting nothing that the adapter may have checked.

    Raises:
        psycopg.OperationalError: the database is gone; no verdict is right then, the adapter's waiter times out
            and the client repeats its key.
    """
    [(_, verdict)] = decide_all(connection, settings, [command])
    return verdict


def decide_all(
    connection: psycopg.Connection,
    settings: NodeSettings,
    commands: Iterable[Command],
    largest_array: int | None = None,
) -> Iterator[tuple[Command, Verdict]]:
    """Carry out commands in their order; submissions that follow each other are one transaction.

    Args:
        largest_array: elements of the largest array that Slurm takes; `None`: not known, so the policy alone counts.

    Raises:
        psycopg.OperationalError: as `decide`; what was yielded before is decided.
    """
    for are_submissions, some in groupby(commands, lambda each: each.operation == "submit"):
        if are_submissions:
            yield from _submit_all(connection, settings, list(some), largest_array)
        else:
            for command in some:
                yield command, _carry_out(connection, settings, command)


def _carry_out(connection: psycopg.Connection, settings: NodeSettings, command: Command) -> Verdict:
    def carry_out() -> Verdict:
        check_signature(settings, command)
        return _OPERATIONS[command.operation](connection, settings, command)

    return judged(command, carry_out)


def judged(
    command: Command, carry_out: Callable[[], Verdict], *, level: int = logging.INFO
) -> Verdict:
    """The verdict, also where carrying the command out fails; logged, at `level` when it is what was wanted."""
    try:
        verdict = carry_out()
    except ProblemError as error:
        verdict = Verdict(outcome="rejected", problem=error.problem())
    except psycopg.OperationalError:
        raise
    except Exception:
        _LOGGER.exception("command %s could not be decided", command.command_id)
        verdict = Verdict(outcome="rejected", problem=ProblemError("node-failed").problem())
    _LOGGER.log(
        logging.INFO if verdict.outcome == "rejected" else level,
        "Command decided event=command_decided operation=%s outcome=%s tenant=%s job=%s command=%s",
        command.operation,
        verdict.outcome,
        command.tenant_id,
        command.job_id,
        command.command_id,
    )
    return verdict


def _submit_all(
    connection: psycopg.Connection,
    settings: NodeSettings,
    commands: Sequence[Command],
    largest_array: int | None,
) -> Iterator[tuple[Command, Verdict]]:
    """Claim all in one transaction; where that fails as a whole, each in its own, so that only one is at fault."""
    read: list[Asked | Exception] = [_read(settings, each) for each in commands]
    asked = [each for each in read if isinstance(each, Asked)]
    # One and the same for all it is asked.
    policy = functools.cache(lambda: policy_of(settings).with_arrays_up_to(largest_array))
    try:
        answers: Iterator[_Answer] = iter(
            ledger.accept_all(
                connection,
                asked,
                place=lambda order: _place(policy(), settings, order),
                quota=lambda tenant_id: policy().quota(tenant_id),
            )
            if asked
            else []
        )
    except psycopg.OperationalError:
        raise
    except Exception as error:
        if len(commands) > 1:
            for command in commands:
                yield from _submit_all(connection, settings, [command], largest_array)
            return
        answers = iter([error])
    for command, each in zip(commands, read, strict=True):
        answer = next(answers) if isinstance(each, Asked) else each
        yield command, judged(command, functools.partial(_verdict, answer))


def _read(settings: NodeSettings, command: Command) -> Asked | Exception:
    """What the command asks of the ledger, or why it is not let near it."""
    try:
        check_signature(settings, command)
        order = validated(SubmitJobCommand, command.body, what="command")
        _check_address(order, settings, command)
    except Exception as error:
        return error
    if command.idempotency_key is None:
        return ProblemError("idempotency-key-invalid")
    return Asked(command=order, key=command.idempotency_key, now=datetime.now(UTC))


def _verdict(answer: _Answer) -> Verdict:
    if isinstance(answer, Exception):
        raise answer
    acceptance, replayed = answer
    return Verdict(outcome="replayed" if replayed else "accepted", acceptance=acceptance)


def _cancel(connection: psycopg.Connection, settings: NodeSettings, command: Command) -> Verdict:
    order = validated(CancelJobCommand, command.body, what="command")
    _check_address(order, settings, command)
    cancellation, repeated = ledger.cancel(
        connection,
        order,
        serve=lambda order: policy_of(settings).serve(order.tenant_id),
        now=datetime.now(UTC),
    )
    return Verdict(outcome="replayed" if repeated else "accepted", cancellation=cancellation)


def _inspect(connection: psycopg.Connection, settings: NodeSettings, command: Command) -> Verdict:
    policy_of(settings).serve(command.tenant_id)
    return Verdict(outcome="answered", job=view(connection, command.tenant_id, command.job_id))


def _receipt(connection: psycopg.Connection, settings: NodeSettings, command: Command) -> Verdict:
    policy_of(settings).serve(command.tenant_id)
    try:
        key = private_key(settings.key_file)
    except SettingsError as error:
        _LOGGER.error("no receipt can be signed: %s", error)  # noqa: TRY400
        raise ProblemError("node-failed", retry_after=30) from error
    receipt = issue_for_wire(connection, key, command.tenant_id, command.job_id)
    return Verdict(outcome="answered", receipt=receipt)


def _place(
    policy: Policy, settings: NodeSettings, order: SubmitJobCommand
) -> Placement | WorkchainPlacement:
    """What the policy says, but nobody waits for an image that is there."""
    placement = policy.place(order)
    if isinstance(placement, Placement) and placement.pull is not None:
        store = ImageStore(settings.image_store)
        if store.has(placement.image_digest):
            return placement.model_copy(update={"pull": None})
    return placement


_OPERATIONS = {"cancel": _cancel, "inspect": _inspect, "receipt": _receipt}


def _check_address(
    order: SubmitJobCommand | CancelJobCommand, settings: NodeSettings, command: Command
) -> None:
    """The envelope says for whom the adapter authenticated the sender; the order must say the same."""
    if order.tenant_id != command.tenant_id:
        raise ProblemError("tenant-mismatch")
    if order.management_node_id != settings.node_id:
        raise ProblemError("node-mismatch")
    if order.job_id != command.job_id:
        message = "differs from the job the command was sent for"
        raise ProblemError(
            "validation-failed", errors=[FieldError(field="job_id", message=message)]
        )


def check_signature(settings: NodeSettings, command: Command) -> None:
    """Hold a command to the product's signature, by the keys and the policy as they are now.

    Raises:
        ProblemError: `signature-invalid`, or `node-failed` when that cannot be known.
    """
    keys: signatures.ProductKeys = {}
    if settings.product_keys_file is not None:
        try:
            keys = signatures.load_product_keys(settings.product_keys_file)
        except signatures.KeysError as error:
            _LOGGER.error("nothing can be decided: %s", error)  # noqa: TRY400
            raise ProblemError("node-failed", retry_after=30) from error
    required = bool(keys)
    try:
        said = Policy.load(settings.policy_file).signatures.required
        required = required if said is None else said
    except PolicyError as error:
        # It says nothing then. What was decided before is told all the same to who signs, or where nobody has to;
        # who does not sign may be allowed not to.
        if required and command.signature is None:
            _LOGGER.error("nothing can be decided: %s", error)  # noqa: TRY400
            raise ProblemError("node-failed", retry_after=30) from error
    signatures.check(command, keys, required=required)


def policy_of(settings: NodeSettings) -> Policy:
    """The owner's policy as it is now.

    Raises:
        ProblemError: it cannot be read.
    """
    try:
        return Policy.load(settings.policy_file)  # read anew: an owner's change counts at once
    except PolicyError as error:
        _LOGGER.error("nothing can be decided: %s", error)  # noqa: TRY400
        raise ProblemError("node-failed", retry_after=30) from error
