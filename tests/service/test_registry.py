"""Images pulled from a real registry, over whatever lies between it and the node."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from aiida_byoc.runtimes.images import ImageStore
from aiida_byoc.runtimes.oci import ImageError, SourceUnavailable
from lab import registry
from lab.chaos.proxy import Fault, FaultProxy, Rule
from lab.paths import LabPaths
from tests.labs import scratch_lab
from tests.service.registries import (
    BIG,
    HTPASSWD,
    PASSWORD,
    REPOSITORY,
    UNKNOWN,
    USER,
    Authority,
    pull,
    send,
    token_server,
    wire,
)
from tests.unit.node.oci import DOCKER, file, index, layer, layout
from tests.unit.node.test_oci import ELSEWHERE, HERE


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
