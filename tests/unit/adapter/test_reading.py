"""Headers and bodies are read strictly: one form, one size, one meaning."""

from __future__ import annotations

import asyncio
import re

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from adapter.reading import idempotency_key, json_body, traceparent_header
from aiida_byoc.contracts.problems import ProblemError

KEY = st.from_regex(r"[A-Za-z0-9._~-]{16,128}", fullmatch=True)
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def headers(*values: str) -> Headers:
    return Headers(raw=[(b"idempotency-key", value.encode("latin-1")) for value in values])


@given(KEY)
def test_a_quoted_key_is_read_without_its_quotes(key):
    assert idempotency_key(headers(f'"{key}"')) == key


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=140))
def test_any_other_form_is_refused(value):
    """Whatever is not exactly the quoted key is refused, and the refusal names the header."""
    if re.fullmatch(r' *"[A-Za-z0-9._~-]{16,128}" *', value):
        return
    with pytest.raises(ProblemError) as caught:
        idempotency_key(headers(value))

    assert caught.value.kind.name == "idempotency-key-invalid"
    assert caught.value.errors[0].field == "Idempotency-Key"
    assert caught.value.errors[0].remedy


@given(KEY)
def test_near_misses_are_refused(key):
    """Bare, with parameters, repeated in one header or in two, or with a line break."""
    for values in [
        (key,),
        (f'"{key}";v=1',),
        (f'"{key}", "{key}"',),
        (f'"{key}"', f'"{key}"'),
        (f'"{key}\n"',),
        (f'"{key}"\n',),
        (f'"{key[:15]}"',),
        (),
    ]:
        with pytest.raises(ProblemError, match="idempotency-key-invalid"):
            idempotency_key(headers(*values))


@pytest.mark.parametrize(
    "value", ["", "00-x", TRACEPARENT + "\n", TRACEPARENT.upper(), "01" + TRACEPARENT[2:]]
)
def test_an_invalid_trace_is_treated_as_absent(value):
    assert traceparent_header(Headers({"traceparent": value})) is None


def test_a_valid_trace_is_carried_on():
    assert traceparent_header(Headers({"traceparent": TRACEPARENT})) == TRACEPARENT


def read(body: list[bytes], limit: int = 100, *, if_empty=None, **header: str):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive():
        return next(left)

    names = {name.replace("_", "-"): value for name, value in header.items()}
    scope = {"type": "http", "method": "POST", "path": "/", "headers": Headers(names).raw}
    return asyncio.run(json_body(Request(scope, receive), limit, if_empty=if_empty))


JSON = {"content_type": "application/json"}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
    ],
)
def test_json_is_read(content_type):
    assert read([b'{"a"', b": [1]}"], content_type=content_type) == {"a": [1]}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/json; charset=latin-1",
        "application/json; v=1",
        "application/jsonx",
    ],
)
def test_another_media_type_is_refused(content_type):
    with pytest.raises(ProblemError, match="unsupported-media-type"):
        read([b"{}"], content_type=content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a":1,"a":2}',
        b"NaN",
        b"[Infinity]",
        b"{}{}",
        b"[" * 5000,
        b"9" * 5000,
    ],
)
def test_what_is_not_json_is_malformed(body):
    with pytest.raises(ProblemError, match="malformed-request"):
        read([body], limit=10_000, **JSON)


def test_the_limit_counts_what_arrives():
    """A body without, with a true, or with a false Content-Length: none gets past the limit."""
    exact = b'"' + b"x" * 98 + b'"'

    assert read([exact[:50], exact[50:]], **JSON) == "x" * 98
    for header in ({}, {"content_length": "101"}, {"content_length": "7"}):
        with pytest.raises(ProblemError, match="payload-too-large"):
            read([exact, b" "], **JSON, **header)


def test_reading_stops_at_the_limit():
    """A declared excess is refused unread, an undeclared one at the chunk that exceeds."""

    async def endless():
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": Headers({"content-type": "application/json"}).raw,
    }
    with pytest.raises(ProblemError, match="payload-too-large"):
        asyncio.run(json_body(Request(scope, endless), 100))


def test_an_absent_body_may_have_a_meaning():
    assert read([], if_empty={"default": True}) == {"default": True}
    assert read([b"{}"], if_empty={"default": True}, **JSON) == {}
    with pytest.raises(ProblemError, match="unsupported-media-type"):
        read([b"{}"], if_empty={"default": True})
