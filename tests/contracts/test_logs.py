"""Chunks of logs: bytes survive, text stays text, and whoever goes on from where a chunk ends gets all of it once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_byoc.contracts.delivery import Verdict
from aiida_byoc.contracts.logs import MAX_LOG_CHUNK, LogChunk, LogRequest, written
from aiida_byoc.contracts.validation import validated
from tests.contracts.messages import changed, golden, refused

BYTES = st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode))


def chunk(content: bytes, offset: int, limit: int, *, is_closed: bool) -> LogChunk:
    """What a node answers that has these bytes by now."""
    part = content[offset : offset + limit]
    is_last = is_closed and offset + len(part) >= len(content)
    encoding, data, length = written(part, more=not is_last, limit=limit)
    place = {"offset": offset, "next_offset": offset + length, "size": len(content)}
    said = {"encoding": encoding, "data": data, "complete": is_last}
    return validated(LogChunk, {**golden("log-chunk.text"), **place, **said})


@given(content=BYTES, limits=st.lists(st.integers(1, 7), min_size=1), grown=st.integers(0, 40))
def test_chunk_after_chunk_is_the_stream(content, limits, grown):
    """Whatever the chunks' limits, and although the stream is not whole yet when the first are read."""
    read, offset, is_closed = b"", 0, False
    for turn in range(200):
        visible = content if is_closed else content[:grown]
        part = chunk(visible, offset, limits[turn % len(limits)], is_closed=is_closed)
        read, offset = read + part.content, part.next_offset
        if part.complete:
            break
        is_closed = is_closed or not part.content

    assert read == content


@given(text=st.text(max_size=40), limit=st.integers(4, 9))
def test_text_arrives_as_text(text, limit):
    """Also where a chunk's end falls into a character."""
    content, offset = text.encode(), 0
    while True:
        part = chunk(content, offset, limit, is_closed=True)
        assert part.encoding == "utf-8"
        offset = part.next_offset
        if part.complete:
            break

    assert offset == len(content)


def test_what_is_no_text_is_base64():
    assert written(b"\x00\xff", more=True, limit=9) == ("base64", "AP8=", 2)
    assert written("€".encode()[:2], more=False, limit=9) == ("base64", "4oI=", 2)


def test_a_character_that_is_being_written_waits_for_its_rest():
    assert written(b"a" + "€".encode()[:2], more=True, limit=9) == ("utf-8", "a", 1)
    assert written("€".encode()[:2], more=True, limit=9) == ("utf-8", "", 0)
    assert written("€".encode()[:2], more=True, limit=2) == ("base64", "4oI=", 2)


@pytest.mark.parametrize(
    ("path", "value"),
    [("next_offset", 8), ("next_offset", 10), ("data", "beta"), ("encoding", "base64")],
)
def test_a_chunk_that_does_not_add_up_is_refused(path, value):
    [error] = refused(LogChunk, changed(golden("log-chunk.text"), path, value)).errors

    assert error.field == "(body)"


def test_the_largest_chunk_travels_whatever_its_bytes_are():
    for content in (b"\xff" * MAX_LOG_CHUNK, b"\x00" * MAX_LOG_CHUNK):
        encoding, data, length = written(content, more=False, limit=MAX_LOG_CHUNK)
        said = {"encoding": encoding, "data": data, "next_offset": length, "size": length}
        verdict = {"outcome": "answered", "log": {**golden("log-chunk.text"), **said}}

        assert validated(Verdict, verdict).log.content == content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "stdin"),
        ("offset", 2**53),
        ("offset", "0"),
        ("limit", 0),
        ("limit", MAX_LOG_CHUNK + 1),
        ("attempt", 0),
        ("follow", True),
    ],
)
def test_a_request_beyond_its_bounds_names_the_field(field, value):
    assert [error.field for error in refused(LogRequest, {field: value}).errors] == [field]
