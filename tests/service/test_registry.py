"""Images pulled from a real registry, over whatever lies between it and the node."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from aiida_byoc.registry.repository import repository
from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import Image, ImageError, SourceUnavailable
from aiida_byoc.runtimes.reference import Reference
from lab import registry
from lab.chaos.proxy import Fault, FaultProxy, Rule
from lab.paths import LabPaths
from tests.labs import scratch_lab
from tests.service.registries import (
    HTPASSWD,
    PASSWORD,
    USER,
    Authority,
    send,
    token_server,
    wire,
)
from tests.unit.node.oci import DOCKER, file, index, layer, layout
from tests.unit.node.test_oci import ELSEWHERE, HERE

UNKNOWN = "sha256:" + "0" * 64
REPOSITORY = "lab/tool"
BIG = os.urandom(200_000).hex()


@pytest.fixture(scope="module")
def paths() -> Iterator[LabPaths]:
    with scratch_lab("registry") as paths:
        yield paths


@pytest.fixture(scope="module")
def authority(paths: LabPaths) -> Authority:
    return Authority(paths.root)


@pytest.fixture(scope="module")
def server(paths: LabPaths) -> registry.Registry:
    """A registry that asks nobody."""
    return registry.start(paths)


@pytest.fixture(scope="module")
def pushed(server: registry.Registry, paths: LabPaths) -> dict[str, str]:
    """Digests of what the registry has, by name."""
    place = paths.directory("layout")
    digests = {
        "image": layout(
            place, [layer(file("name", "image"), file("big", BIG)), layer(file("top"))]
        ),
        "elsewhere": layout(place, [layer(file("name", "elsewhere"))]),
        "docker": layout(place, [layer(file("name", "docker"), compress=True)], kinds=DOCKER),
    }
    digests["index"] = index(
        place, {f"linux/{ELSEWHERE}": digests["elsewhere"], f"linux/{HERE}": digests["image"]}
    )
    for name, digest in digests.items():
        registry.push(server, place, REPOSITORY, name, digest=digest)
    manifest = json.loads(
        (place / "blobs/sha256" / digests["image"].removeprefix("sha256:")).read_text()
    )
    return {**digests, "big": manifest["layers"][0]["digest"]}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def auth(tmp_path: Path) -> Callable[..., Path]:
    """Write an auth file."""

    def auth(host: str, user: str = USER, password: str = PASSWORD, **more: str) -> Path:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        place = tmp_path / "auth.json"
        place.write_text(json.dumps({"auths": {host: {"auth": pair, **more}}}))
        place.chmod(0o600)
        return place

    return auth


def pull(
    store: ImageStore,
    host: str,
    what: str,
    auth_file: Path | None = None,
    *,
    seconds: float = 60,
    most_bytes: int | None = None,
) -> Image:
    """What `images add docker://…` does."""
    reference = Reference.parse(f"{host}/{REPOSITORY}{what}")
    with repository(reference, auth_file, seconds=seconds) as source:
        return store.take(source, source.digest(), most_bytes=most_bytes)


@pytest.mark.parametrize("name", ["image", "docker"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_is_pulled_and_unpacked(
    store: ImageStore, server: registry.Registry, pushed: dict[str, str], name: str, by: str
) -> None:
    pulled = pull(store, server.host, f":{name}" if by == "tag" else f"@{pushed[name]}")

    assert pulled.manifest.digest == pushed[name]
    assert (store.rootfs(pushed[name]) / "name").read_text() == name


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_of_an_index_comes_this_machines_image(
    store: ImageStore, server: registry.Registry, pushed: dict[str, str], by: str
) -> None:
    pulled = pull(store, server.host, ":index" if by == "tag" else f"@{pushed['index']}")

    assert (pulled.manifest.digest, pulled.index) == (pushed["image"], pushed["index"])
    assert store.digests() == [pushed["image"]]


@pytest.mark.parametrize("what", [":none", f"@{UNKNOWN}", f":image@{UNKNOWN}"])
@pytest.mark.usefixtures("pushed")
def test_what_the_registry_does_not_have_is_told(
    store: ImageStore, server: registry.Registry, what: str
) -> None:
    with pytest.raises(ImageError, match=r"does not have it \(HTTP 404, MANIFEST_UNKNOWN") as told:
        pull(store, server.host, what)
    assert not isinstance(told.value, SourceUnavailable)


def test_an_image_that_is_too_large_is_not_pulled(
    store: ImageStore, server: registry.Registry, pushed: dict[str, str]
) -> None:
    with pytest.raises(ImageError, match="MiB are allowed"):
        pull(store, server.host, ":image", most_bytes=100_000)
    assert not list(store.directory.rglob("*"))


def test_what_was_altered_at_the_registry_is_refused(
    store: ImageStore, server: registry.Registry, paths: LabPaths, pushed: dict[str, str]
) -> None:
    """By the digest, however whole it looks; and nothing of it is kept."""
    place = paths.directory("altered")
    digest = layout(place, [layer(file("victim", "x" * 5000))])
    registry.push(server, place, REPOSITORY, digest=digest)
    manifest = json.loads((place / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())
    victim = manifest["layers"][0]["digest"].removeprefix("sha256:")
    stored = next(paths.directory(registry.NAME).rglob(f"{victim}/data"))
    content = bytearray(stored.read_bytes())
    content[1000] ^= 1
    stored.write_bytes(content)

    with pytest.raises(ImageError, match=f"{victim} has been altered"):
        pull(store, server.host, f"@{digest}")
    assert store.digests() == []
    assert list(store.directory.glob("layouts/*")) == []


@pytest.fixture
def proxy(server: registry.Registry, paths: LabPaths) -> Iterator[FaultProxy]:
    proxy = FaultProxy(f"http://{server.host}", paths.ports("proxy")[0])
    yield proxy
    proxy.close()


def address(proxy: FaultProxy) -> str:
    return proxy.url.removeprefix("http://")


def test_a_pull_that_is_cut_goes_on_where_it_was(
    store: ImageStore, proxy: FaultProxy, pushed: dict[str, str]
) -> None:
    """Each time half of the rest arrives."""
    cut = Rule(Fault.CUT_ANSWER, match=pushed["big"], times=6)
    with proxy.rule(cut):
        pull(store, address(proxy), ":image")

    assert cut.applied == 6
    assert store.rootfs(pushed["image"]).joinpath("big").read_text() == BIG


@pytest.mark.parametrize(
    "fault", [Fault.DROP, Fault.LOSE_ANSWER, Fault.UNAVAILABLE, Fault.THROTTLE]
)
def test_a_short_failure_is_gone_over(
    store: ImageStore, proxy: FaultProxy, pushed: dict[str, str], fault: Fault
) -> None:
    with proxy.rule(Rule(fault, match="GET .*/blobs/", times=2)) as rule:
        pull(store, address(proxy), ":image")

    assert rule.applied == 2
    assert store.has(pushed["image"])


@pytest.mark.usefixtures("pushed")
def test_a_long_failure_is_told_and_what_came_is_kept(
    store: ImageStore, proxy: FaultProxy, pushed: dict[str, str]
) -> None:
    """A later pull needs only the rest."""
    first = Rule(Fault.CUT_ANSWER, match=pushed["big"], times=3)
    with proxy.rule(first), proxy.rule(Rule(Fault.DROP, match=pushed["big"])):
        with pytest.raises(SourceUnavailable, match="does not answer"):
            pull(store, address(proxy), ":image")
        assert store.digests() == []
    (partial,) = store.directory.rglob("*.partial")
    half = partial.stat().st_size

    with proxy.rule(Rule(Fault.CUT_ANSWER, match=pushed["big"], times=1)):
        pull(store, address(proxy), ":image")

    assert half > len(BIG) // 2
    assert store.has(pushed["image"])


def test_nobody_there_is_told(store: ImageStore, paths: LabPaths) -> None:
    with pytest.raises(SourceUnavailable, match=r"does not answer: .*refused"):
        pull(store, f"127.0.0.1:{paths.ports('nobody')[0]}", ":image")


def test_a_registry_signed_by_the_machines_authorities_is_believed(
    store: ImageStore,
    paths: LabPaths,
    authority: Authority,
    pushed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no other, also on this machine: no fallback to HTTP without TLS."""
    files = (authority.certificate_file, authority.key_file)
    encrypted = registry.start(paths, "registry-tls", tls=files)

    with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        pull(store, encrypted.host, ":image")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
    pull(store, encrypted.host, ":image")

    assert store.has(pushed["image"])


def test_a_password_is_shown_to_whoever_asks_for_one(
    store: ImageStore, paths: LabPaths, pushed: dict[str, str], auth: Callable[..., Path]
) -> None:
    (paths.root / "htpasswd").write_text(HTPASSWD)
    basic = {"htpasswd": {"realm": "lab", "path": str(paths.root / "htpasswd")}}
    closed = registry.start(paths, "registry-basic", auth=basic)

    for known in (None, auth(closed.host, password="wrong"), auth("other.example")):
        with pytest.raises(
            ImageError, match=r"HTTP 401, UNAUTHORIZED.*; the node's owner must log in"
        ):
            pull(store, closed.host, ":image", known)
    pull(store, closed.host, ":image", auth(f"{closed.host}/{REPOSITORY}"))

    assert store.has(pushed["image"])


@pytest.mark.parametrize("known", [{}, {"identitytoken": "refresh"}])
def test_a_token_is_fetched_where_the_registry_says(  # noqa: PLR0917
    store: ImageStore,
    paths: LabPaths,
    authority: Authority,
    pushed: dict[str, str],
    auth: Callable[..., Path],
    known: dict[str, str],
) -> None:
    """With a password or a refresh token; it holds for all requests of a pull."""
    with wire(token_server(authority, service="lab")) as tokens:
        wanted = {
            "realm": f"http://{tokens.host}/token",
            "service": "lab",
            "issuer": "tokens",
            "rootcertbundle": str(authority.certificate_file),
        }
        closed = registry.start(paths, "registry-token", auth={"token": wanted})
        try:
            for stranger in (None, auth(closed.host, password="wrong")):
                with pytest.raises(ImageError, match=r"HTTP 401.*who are you.*must log in"):
                    pull(store, closed.host, ":image", stranger)
            before = len(tokens.asked)
            pull(store, closed.host, ":image", auth(closed.host, **known))
        finally:
            registry.stop(paths, "registry-token")

    assert store.has(pushed["image"])
    assert len(tokens.asked) == before + 1


def test_a_token_that_runs_out_on_the_way_is_renewed(
    store: ImageStore, server: registry.Registry, pushed: dict[str, str], auth: Callable[..., Path]
) -> None:
    """The registry says so in the middle of a pull, at a second blob."""
    given: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/token"):
            given.append(f"t{len(given)}")
            return send(handler, 200, json.dumps({"token": given[-1]}).encode())
        is_stale = (
            handler.headers.get("Authorization") != f"Bearer t{min(len(front.asked) // 5, 1)}"
        )
        if handler.path != "/v2/" and is_stale:
            asks = f'Bearer realm="http://{front.host}/token",service="s",scope="a:b:c"'
            return send(handler, 401, WWW_Authenticate=asks)
        return send(handler, 307, Location=f"http://{server.host}{handler.path}")

    with wire(answer) as front:
        pull(store, front.host, ":image", auth(front.host))

    assert given == ["t0", "t1"]


def test_where_blobs_are_kept_nobody_sees_our_credentials(
    store: ImageStore, server: registry.Registry, pushed: dict[str, str], auth: Callable[..., Path]
) -> None:
    """A redirect to another host goes without them."""

    def relay(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 307, Location=f"http://{server.host}{handler.path}")

    def front(handler: BaseHTTPRequestHandler) -> None:
        if "Authorization" not in handler.headers:
            return send(handler, 401, WWW_Authenticate='Basic realm="x"')
        return send(handler, 307, Location=f"http://{behind.host}{handler.path}")

    with wire(relay) as behind, wire(front) as before:
        pull(store, before.host, ":image", auth(before.host))

    assert [headers for _, headers in before.asked if "Authorization" in headers]
    assert behind.asked
    assert not [headers for _, headers in behind.asked if "Authorization" in headers]


@pytest.mark.parametrize("where", ["redirect", "realm"])
def test_nothing_leads_out_of_this_machine_without_encryption(
    store: ImageStore, auth: Callable[..., Path], where: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        there = "http://registry.example/x"
        if where == "redirect":
            return send(handler, 307, Location=there)
        return send(handler, 401, WWW_Authenticate=f'Bearer realm="{there}",service="s"')

    with (
        wire(answer) as server,
        pytest.raises(ImageError, match=r"leads to registry\.example without"),
    ):
        pull(store, server.host, ":image", auth(server.host))


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
