"""`verdi data byoc policy …`: is the owner's file right, and what becomes of a command under it."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from aiida_byoc.cli.common import node_settings, one_sentence

if TYPE_CHECKING:
    from aiida_byoc.contracts.problems import FieldError, ProblemError
    from aiida_byoc.node import NodeSettings

__all__ = ["policy"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def policy() -> None:
    """The owner's word on who may run what: `policy.toml`."""


@policy.command("check")
@click.argument("file", type=_FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def check(file: Path | None, as_json: bool) -> None:
    """Say what is wrong with the policy, by default the node's; exit status 1 if anything is.

    Every key at fault is named, and what this machine lacks of what the file names: partitions, accounts, QOS,
    runtimes, images, directories, work chains.
    """
    import json

    from aiida_byoc.cli.policy_machine import findings
    from aiida_byoc.commands.policy import Policy
    from aiida_byoc.commands.policy_keys import mistakes

    settings = _settings()
    path = _path(file, settings)
    found, unknown = mistakes(path), ["this machine: the file comes first"]
    if not found:
        found, unknown = findings(Policy.load(path), settings)
    if as_json:
        told = [each.model_dump(exclude_none=True) for each in found]
        report = {"file": str(path), "findings": told, "not_compared": unknown}
        click.echo(json.dumps(report, indent=2))
    else:
        _tell(found)
        for what in unknown:
            click.echo(f"not compared: {what}")
        click.echo(f"{path}: {len(found)} finding(s)" if found else f"{path} is in order")
    if found:
        raise SystemExit(1)


@policy.command("explain")
@click.argument("command", type=click.File(encoding="utf-8"), metavar="COMMAND.json")
@click.option("--policy", "file", type=_FILE, help="Another policy than the node's.")
@click.option("--tenant", help="As if the command came from this tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def explain(command: IO[str], file: Path | None, tenant: str | None, as_json: bool) -> None:
    """Say where a SubmitJobCommand would run, and as what, or why it is refused; exit status 1 if it is.

    COMMAND.json is the body of the submission; `-` reads it from standard input. Nothing is submitted. Quotas
    and a drain count as they are now.
    """
    import json

    from aiida_byoc.asking import largest_array
    from aiida_byoc.commands.policy import Policy
    from aiida_byoc.contracts.commands import SubmitJobCommand
    from aiida_byoc.contracts.problems import ProblemError
    from aiida_byoc.contracts.validation import validated

    settings = _settings()
    rules = Policy.load(_path(file, settings)).with_arrays_up_to(largest_array())
    answer: dict[str, Any] = {}
    errors: list[FieldError] = []
    try:
        order = validated(SubmitJobCommand, _body(command, tenant), what="command")
        answer = {
            "tenant_id": order.tenant_id,
            "quota": rules.quota(order.tenant_id).model_dump(mode="json", exclude_none=True),
        }
        placement = rules.place(order)
        _now(order, rules, settings)
        answer["placement"] = placement.model_dump(mode="json", exclude_none=True)
    except ProblemError as error:
        errors = [*error.errors, *_image_as_well(error, rules, order)] if answer else error.errors
        problem = error.problem().model_dump(mode="json", exclude_none=True)
        told = [each.model_dump(exclude_none=True) for each in errors]
        answer["problem"] = {**problem, "errors": told}
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif "problem" in answer:
        click.echo(f"refused: {answer['problem']['title']} ({answer['problem']['status']})")
        click.echo(answer["problem"]["detail"])
        _tell(errors)
    else:
        _show("placement", answer["placement"])
        _show("quota", answer["quota"])
    if "problem" in answer:
        raise SystemExit(1)


def _settings() -> NodeSettings | None:
    """The node's, if this profile is one."""
    from aiida_byoc.node import SettingsError

    try:
        settings: NodeSettings = node_settings()
    except SettingsError:
        return None
    return settings


def _path(file: Path | None, settings: NodeSettings | None) -> Path:
    if file is not None:
        return file
    if settings is None:
        raise click.ClickException("this profile is no node yet; name the policy's file")
    return settings.policy_file


def _body(command: IO[str], tenant: str | None) -> Any:
    import json

    from aiida_byoc.contracts.problems import ProblemError

    try:
        body = json.load(command)
    except (ValueError, RecursionError) as error:
        raise ProblemError("malformed-request") from error
    if tenant is not None and isinstance(body, dict):
        body["tenant_id"] = tenant
    return body


def _image_as_well(error: ProblemError, rules: Any, order: Any) -> list[FieldError]:
    """What the policy would say of the image next: whoever corrects the command wants to know all."""
    from aiida_byoc.commands.image_policy import resolved_image
    from aiida_byoc.contracts.commands import CONTAINED
    from aiida_byoc.contracts.problems import ProblemError

    if error.kind.name == "policy-refused" and isinstance(order.workload, CONTAINED):
        try:
            resolved_image(rules.images, order.workload.image)
        except ProblemError as next_error:
            return next_error.errors
    return []


def _now(order: Any, rules: Any, settings: NodeSettings | None) -> None:
    """What else would refuse the command at this moment: its address, a drain, a quota."""
    from datetime import UTC, datetime

    from aiida_byoc.cli.common import node_tables
    from aiida_byoc.commands.allowance import refuse_beyond
    from aiida_byoc.commands.draining import refuse_while_draining
    from aiida_byoc.contracts.problems import ProblemError

    if settings is None:
        return
    if order.management_node_id != settings.node_id:
        raise ProblemError("node-mismatch")
    now = datetime.now(UTC)
    if order.deadline is not None and order.deadline <= now:
        raise ProblemError("command-expired")
    with node_tables() as connection, connection.transaction(force_rollback=True):
        refuse_while_draining(connection)
        quota, elements = rules.quota(order.tenant_id), rules.dealt(order)["elements"]
        refuse_beyond(connection, order, quota, now, elements=elements)


def _tell(found: list[FieldError]) -> None:
    for each in found:
        click.echo(f"{each.field}: {each.message}" + (f"; {each.remedy}" if each.remedy else ""))


def _show(title: str, values: dict[str, Any]) -> None:
    import json

    click.echo(f"[{title}]")
    for name, value in values.items():
        click.echo(f"{name} = {json.dumps(value)}")
