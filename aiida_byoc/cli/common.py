"""What the commands share: late loading, the profile, and errors as one sentence."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import click

__all__ = [
    "LateGroup",
    "node_settings",
    "node_tables",
    "one_sentence",
    "profile_storage",
    "settings_path",
    "show",
    "silent",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class LateGroup(click.Group):
    """A group whose commands are imported when they are named: `{name: "module:attribute"}`."""

    def __init__(self, *args: Any, late: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late = late

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._late)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._late:
            return None
        module, _, attribute = self._late[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


def one_sentence(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn the errors an operator can mend into one sentence and exit status 1."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        import psycopg

        from aiida_byoc.agent.enrolment import EnrolmentRefused
        from aiida_byoc.agent.link import AdapterUnavailable
        from aiida_byoc.agent.supervisor import AlreadyRunning
        from aiida_byoc.commands.policy import PolicyError
        from aiida_byoc.contracts.problems import ProblemError
        from aiida_byoc.contracts.receipt.verification import ReceiptError
        from aiida_byoc.database.migrate import SchemaError
        from aiida_byoc.node import SettingsError
        from aiida_byoc.runtimes.images import ImageError

        known = (
            AdapterUnavailable,
            AlreadyRunning,
            EnrolmentRefused,
            ImageError,
            PolicyError,
            ReceiptError,
            SchemaError,
            SettingsError,
        )
        try:
            return function(*args, **kwargs)
        except known as error:
            raise click.ClickException(str(error)) from error
        except ProblemError as error:
            faults = "; ".join(f"{each.field} {each.message}" for each in error.errors)
            raise click.ClickException(faults or error.detail) from error
        except psycopg.OperationalError as error:
            raise click.ClickException(silent(error)) from error

    return wrapper


def silent(error: Exception) -> str:
    """That the profile's database does not answer, and why."""
    reason, *_ = str(error).strip().splitlines() or ["it does not say why"]
    return f"the profile's database does not answer: {reason}"


def profile_storage() -> tuple[str, Mapping[str, Any]]:
    """The loaded profile's name and storage configuration; one sentence unless it is on PostgreSQL."""
    from aiida.manage import get_manager

    from aiida_byoc.node import SettingsError

    profile = get_manager().get_profile()
    if profile is None:
        raise SettingsError("no AiiDA profile is loaded; name one with `verdi -p PROFILE`")
    if not profile.storage_backend.endswith("psql_dos"):
        raise SettingsError(
            f"the profile {profile.name} is on {profile.storage_backend}; a management node needs core.psql_dos"
            " (`verdi profile setup core.psql_dos`)"
        )
    return profile.name, profile.storage_config


@contextlib.contextmanager
def node_tables() -> Iterator[Any]:
    """A connection to the tables of the loaded profile's node, once they are known to be of this version."""
    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import check

    _, storage_config = profile_storage()
    with connect(storage_config, application="verdi") as connection:
        check(connection)
        yield connection


def settings_path(profile: str) -> Any:
    """Where the node settings of a profile are."""
    from pathlib import Path

    from aiida.manage.configuration import get_config

    from aiida_byoc.node import NodeSettings

    return NodeSettings.path(Path(get_config().dirpath), profile)


def node_settings() -> Any:
    """The node settings of the loaded profile."""
    from aiida_byoc.node import NodeSettings

    name, _ = profile_storage()
    return NodeSettings.load(settings_path(name))


def show(rows: Iterable[Mapping[str, Any]], columns: list[str], *, as_json: bool) -> None:
    """Print rows as a table, or as one JSON array."""
    rows = list(rows)
    if as_json:
        click.echo(json.dumps(rows, default=str, indent=2))
        return
    table = [columns] + [
        [str(row[name] if row[name] is not None else "") for name in columns] for row in rows
    ]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
