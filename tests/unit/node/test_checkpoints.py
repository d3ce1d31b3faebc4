"""Checkpoints: libyaml's words are AiiDA's."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.common.datastructures import CalcJobState
from aiida.common.extendeddicts import AttributeDict
from aiida.orm.utils.serialize import deserialize_unsafe, serialize
from hypothesis import given
from hypothesis import strategies as st
from plumpy.persistence import Bundle
from plumpy.utils import AttributesFrozendict

from aiida_byoc.events import checkpoints

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.sampled_from(CalcJobState)
    | st.sampled_from(["yes", "~", "0x1", "1e3", "a: b", "#x", "!!x", "&a", "*a", "%", "\x85"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=9), inner)
        | st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), inner).map(AttributeDict)
    ),
    max_leaves=20,
)


@given(value=values)
def test_what_either_writes_either_reads(value: Any) -> None:
    """A worker of an older version may go on with what this one saved, and the other way round."""
    for write in (serialize, checkpoints.dump):
        for read in (deserialize_unsafe, checkpoints.load):
            assert read(write(value)) == value


@pytest.mark.parametrize("of", [AttributesFrozendict, AttributeDict, dict])
def test_types_come_back(of: type[Any]) -> None:
    """As AiiDA represents them; a process is loaded from no less."""
    bundle = Bundle.__new__(Bundle)
    bundle.update({"CONTEXT": of({"a": of({"b": "x" * 300})}), "state": CalcJobState.PARSING})

    text = checkpoints.dump(bundle)

    assert text == serialize(bundle)
    found = checkpoints.load(text)
    assert type(found) is Bundle
    assert type(found["CONTEXT"]) is type(found["CONTEXT"]["a"]) is of
    assert found == bundle
