"""AiiDA's queries in `byoc.psql_dos`: those of one shape are built once."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.orm import CalculationNode, Dict, Int, Node, QueryBuilder, load_node
from aiida.storage.psql_dos.orm.querybuilder.main import SqlaQueryBuilder

from aiida_byoc.storage import statements
from tests.engine.driving import callbacks


@pytest.fixture
def stored(profile: Any) -> Dict:
    """A node of that storage."""
    assert profile.storage_backend == "byoc.psql_dos"
    node: Dict = Dict({"a": 1}).store()
    return node


def of(kind: type[Node], **filters: Any) -> list[str]:
    """The nodes of that type that a query with these filters finds."""
    found = QueryBuilder().append(kind, filters=filters, project="uuid").all(flat=True)
    return sorted(found)


def test_queries_that_differ_in_the_node_they_ask_for_are_built_once(
    stored: Dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answers for its own node, whatever it names it by, and with all else that it asks for."""
    other: Dict = Dict({"b": 2}).store()
    creator = CalculationNode().store()
    created: Dict = Dict({"c": 3})
    created.base.links.add_incoming(creator, LinkType.CREATE, "out")
    created.store()
    nodes = (stored, other, created)
    stored.backend._statements._built.clear()
    built: list[Any] = []
    build = SqlaQueryBuilder._build
    monkeypatch.setattr(
        SqlaQueryBuilder, "_build", lambda self, data: (built.append(data), build(self, data))[1]
    )

    def ask() -> list[list[Any]]:
        session = stored.backend.get_session()
        asked = [
            [load_node(node.pk).uuid for node in nodes],
            [load_node(uuid=node.uuid).pk for node in nodes],
            [of(Dict, id=node.pk, ctime={"<=": node.ctime}) for node in nodes],
            [of(Dict, **{"or": [{"id": node.pk}, {"id": other.pk}]}) for node in nodes],
            [of(Int, id=node.pk) for node in nodes],
            [node.base.links.get_incoming().all_link_labels() for node in nodes],
        ]
        assert session.in_transaction()
        return asked

    answers = callbacks(ask, ask)

    uuids = [node.uuid for node in nodes]
    assert (
        answers
        == [
            [
                uuids,
                [node.pk for node in nodes],
                [[uuid] for uuid in uuids],
                [sorted({uuid, other.uuid}) for uuid in uuids],
                [[], [], []],
                [[], [], ["out"]],
            ]
        ]
        * 2
    )
    # A time is no JSON; alternatives are part of the shape.
    by_id, by_uuid, of_another_type, links = 1, 1, 1, 1
    assert len(built) == by_id + by_uuid + 2 * 3 + 3 + of_another_type + links


def test_any_number_of_shapes_may_be_asked(stored: Dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many are kept."""
    monkeypatch.setattr(statements, "_MOST", 4)
    kept = stored.backend._statements._built
    labels = [f"label-{number}" for number in range(9)]

    assert callbacks(lambda: [of(Dict, id=stored.pk, label=label) for label in labels]) == [
        [[]] * 9
    ]

    assert len(kept) <= 4
