"""The whole stack, as `make up` starts it, in a directory of its own; the tests speak to it as strangers do."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.labs import acme, database, globex, lab, lab_paths  # noqa: F401 - found by name


@pytest.fixture
def rows(database: psycopg.Connection) -> Callable[[], int]:  # noqa: F811
    """How many jobs the ledger holds."""

    def count() -> int:
        row = database.execute("SELECT count(*) FROM byoc.job").fetchone()
        assert row is not None
        return int(row[0])

    return count
