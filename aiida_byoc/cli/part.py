"""A part of a node that can be asked how it is, whatever else of the node is away."""

from __future__ import annotations

import functools
from collections.abc import Callable

import psycopg

from aiida_byoc.cli.common import silent
from aiida_byoc.database.migrate import check

__all__ = ["Database", "Part", "Question", "ask"]

Part = Callable[[], str | None]
"""Tells what is wrong, if anything is."""
Question = Callable[[psycopg.Connection], str | None]
"""The same, of the profile's database."""


def ask(part: Part) -> str | None:
    """What is wrong with a part; it may be down in whatever way."""
    try:
        return part()
    except psycopg.OperationalError as error:
        return silent(error)
    except Exception as error:
        return str(error).strip() or type(error).__name__


class Database:
    """The profile's database, as far as it answers.

    Attributes:
        tables: what is wrong with ours in it.
    """

    def __init__(self, connection: psycopg.Connection | None) -> None:
        self._connection = connection
        self.tables = ask(self.asked(check))

    def asked(self, question: Question) -> Part:
        """A part that it has to be asked about."""
        if self._connection is None:
            return lambda: (
                "cannot be told while the profile's database does not answer; mend that first"
            )
        return functools.partial(question, self._connection)

    def with_tables(self, question: Question) -> Part:
        """A part that our tables tell of."""
        if self._connection is not None and self.tables:
            return lambda: "cannot be told without the tables of this version; mend those first"
        return self.asked(question)
