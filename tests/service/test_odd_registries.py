"""Registries of images that answer without sense, too much, too slowly or for ever: the pull ends, and says why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import ImageError, SourceUnavailable
from tests.service.registries import (
    BIG,
    UNKNOWN,
    pull,
    send,
    wire,
)
from tests.unit.node.oci import file, layer, layout


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ("", "must log in"),
        ("Negotiate", "must log in"),
        ('Bearer realm="",service="s"', "names no place that gives tokens"),
        ('Bearer realm="nowhere"', "names no place that gives tokens"),
        ("Bearer", "names no place that gives tokens"),
    ],
)
def test_a_challenge_without_sense_is_told(store: ImageStore, challenge: str, words: str) -> None:
    with (
        wire(lambda handler: send(handler, 401, WWW_Authenticate=challenge)) as server,
        pytest.raises(ImageError, match=words),
    ):
        pull(store, server.host, ":image")


@pytest.mark.parametrize("token", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb: c"}'])
def test_a_token_without_sense_is_told(store: ImageStore, token: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/token"):
            return send(handler, 200, token)
        return send(handler, 401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token"')

    with wire(answer) as server, pytest.raises(ImageError, match="gave none"):
        pull(store, server.host, ":image")


def served(
    layout_: Path, answer_blob: Callable[[BaseHTTPRequestHandler, bytes], None]
) -> Callable[[BaseHTTPRequestHandler], None]:
    """A registry whose manifests are in order."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rpartition("/")[2].removeprefix("sha256:")
        content = layout_ / "blobs" / "sha256" / name
        if "/manifests/" in handler.path:
            return send(handler, 200, content.read_bytes())
        if handler.path == "/v2/":
            return send(handler, 200)
        return answer_blob(handler, content.read_bytes())

    return answer


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, str]:
    place = tmp_path / "layout"
    return place, layout(place, [layer(file("a", BIG))])


def test_a_registry_that_knows_no_ranges_is_gone_on_with(
    store: ImageStore, small: tuple[Path, str]
) -> None:
    """From the beginning, of which nothing is written twice."""
    place, digest = small
    failures = iter([True, True])

    def whole(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        if len(content) > 10_000 and next(failures, False):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 3])
            raise ConnectionAbortedError
        send(handler, 200, content)

    with wire(served(place, whole)) as server:
        pull(store, server.host, f"@{digest}")

    assert [headers["Range"] for _, headers in server.asked if "Range" in headers]
    assert store.rootfs(digest).joinpath("a").read_text() == BIG


@pytest.mark.parametrize("range_", ["bytes 5-9/10", "bytes x", ""])
def test_another_part_than_was_asked_for_is_refused(
    store: ImageStore, small: tuple[Path, str], range_: str
) -> None:
    place, digest = small

    def other_part(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        send(handler, 206 if len(content) > 10_000 else 200, content, Content_Range=range_)

    with (
        wire(served(place, other_part)) as server,
        pytest.raises(ImageError, match="sends another part"),
    ):
        pull(store, server.host, f"@{digest}")


def test_more_than_was_promised_is_not_even_read(
    store: ImageStore, small: tuple[Path, str]
) -> None:
    """However long the registry would go on."""
    place, digest = small
    sent = 0

    def endless(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))
            sent += 100_000

    with wire(served(place, endless)) as server, pytest.raises(ImageError, match="altered"):
        pull(store, server.host, f"@{digest}")
    assert sent < 100_000_000


def test_an_endless_manifest_is_not_read_to_its_end(store: ImageStore) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))

    with wire(endless) as server, pytest.raises(ImageError, match="has more than 4194304 bytes"):
        pull(store, server.host, f"@{UNKNOWN}")


def test_a_trickle_ends_in_time(store: ImageStore, small: tuple[Path, str]) -> None:
    """What came is kept, so that a later pull makes headway all the same."""
    place, digest = small

    def trickle(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        if len(content) < 10_000:
            return send(handler, 200, content)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for byte in content:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.01)
        return None

    began = time.monotonic()
    with (
        wire(served(place, trickle)) as server,
        pytest.raises(SourceUnavailable, match="is too slow"),
    ):
        pull(store, server.host, f"@{digest}", seconds=0.5)

    assert time.monotonic() - began < 10
    (partial,) = store.directory.rglob("*.partial")
    assert partial.stat().st_size > 0


@pytest.mark.parametrize(
    ("status", "body", "words", "passes"),
    [
        (
            403,
            b'{"errors": [{"code": "DENIED", "message": "no\\u0007"}]}',
            r"HTTP 403, DENIED: no \)",
            False,
        ),
        (429, b"", "has no time for us", True),
        (503, b"<html>", r"has no time for us \(HTTP 503\)", True),
        (418, b"[]", "answers HTTP 418$", False),
        (500, b"x" * 10_000_000, "has no time for us", True),
    ],
)
def test_a_refusal_is_told_in_a_sentence(
    store: ImageStore, status: int, body: bytes, words: str, passes: bool
) -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            send(handler, 200 if handler.path == "/v2/" else status, body, Retry_After="7")

    with wire(refuse) as server, pytest.raises(ImageError, match=words) as told:
        pull(store, server.host, ":image")
    assert isinstance(told.value, SourceUnavailable) is passes
    assert getattr(told.value, "retry_after", 7.0) == 7.0


def test_who_redirects_for_ever_is_left(store: ImageStore) -> None:
    with (
        wire(lambda handler: send(handler, 307, Location=handler.path)) as server,
        pytest.raises(ImageError, match="redirects for ever"),
    ):
        pull(store, server.host, ":image")
