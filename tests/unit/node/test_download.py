"""Files fetched over real HTTPS: from where the owner allows, whatever names, redirects and servers say."""

from __future__ import annotations

import gzip
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.agent import download
from aiida_byoc.agent.download import NotNow, Unfetchable, host_of, opened
from aiida_byoc.commands.data import Data
from aiida_byoc.runtimes.fetched import FetchedFiles, WrongContent
from tests.https_store import Answer, Store, https_store, make_authority

CONTENT = b"1,2\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with https_store(tmp_path) as store:
        store.answers["/file"] = Answer(CONTENT)
        yield store


def rules(store: Store, *hosts: str, **more: Any) -> Data:
    """The owner allows the store as one of the site itself, or these hosts."""
    private = hosts or (f"localhost:{store.port}",)
    return Data(**{"private_hosts": list(private), "ca_file": str(store.ca_file), **more})


def content(url: str, allowed: Data) -> bytes:
    with opened(url, allowed) as blocks:
        return b"".join(blocks)


def moved(to: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": to})


def test_a_file_comes_as_it_is(store: Store) -> None:
    assert content(store.url(), rules(store)) == CONTENT
    assert store.asked == [("/file", f"localhost:{store.port}")]
    assert store.names == ["localhost"]


def test_a_name_is_resolved_once_and_its_address_asked_by_that_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers differently the next time gains nothing; certificate and Host are the name's."""
    names: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        names.append(name)
        if name == "store.example" and names.count(name) > 1:
            raise AssertionError("asked twice")
        return real("127.0.0.1" if name == "store.example" else name, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    url = store.url(host="store.example")
    assert content(url, rules(store, f"store.example:{store.port}")) == CONTENT

    assert names.count("store.example") == 1
    assert store.asked == [("/file", f"store.example:{store.port}")]
    assert store.names == ["store.example"]


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        ({"private_hosts": []}, "does not allow the host localhost"),
        ({"private_hosts": ["localhost:1"]}, "does not allow the host localhost"),
        ({"private_hosts": [], "hosts": ["*.localhost"]}, "does not allow the host localhost"),
        ({"private_hosts": [], "hosts": ["localhost"]}, "does not allow the host localhost"),
        ({"private_hosts": [], "hosts": ["localhost:PORT"]}, "has an address that is not public"),
    ],
    ids=["none", "another port", "below it", "no port", "public"],
)
def test_what_the_owner_does_not_allow_is_not_asked(
    store: Store, allowed: dict[str, list[str]], words: str
) -> None:
    hosts = {
        name: [each.replace("PORT", str(store.port)) for each in entries]
        for name, entries in allowed.items()
    }

    with pytest.raises(Unfetchable, match=words):
        content(store.url(), rules(store, **hosts))
    assert store.names == []


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("255.255.255.255", False), ("192.0.2.1", False), ("198.18.0.1", False), ("240.0.0.1", False),
        ("::1", False), ("::", False), ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False),
        ("2001:db8::1", False), ("::ffff:10.0.0.1", False), ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False), ("64:ff9b::5db8:d822", True), ("2002:a00:1::", False),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, is_public: bool) -> None:
    """Also those that are wrapped into another kind."""
    assert download._is_public(address) is is_public


def test_one_address_that_is_not_public_spoils_a_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    with pytest.raises(Unfetchable, match="not public"):
        content("https://data.example/x", Data(hosts=["data.example"]))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/file", "HERE/file"], ids=["relative", "absolute"])
def test_redirects_are_followed(store: Store, status: int, where: str) -> None:
    store.answers["/old"] = moved(where.replace("HERE", store.url("")), status)

    assert content(store.url("/old"), rules(store)) == CONTENT


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("http://localhost:PORT/file", "not plain HTTPS"),
        ("file:///etc/passwd", "not plain HTTPS"),
        ("https://me:secret@localhost:PORT/file", "not plain HTTPS"),
        ("https://127.0.0.1:PORT/file", "does not allow the host 127.0.0.1"),
        ("https://mirror.example:PORT/file", "does not allow the host mirror.example"),
        ("https://localhost:1/file", "does not allow the host localhost:1"),
        ("https://a:b@localhost:PORT", "not plain HTTPS"),
        ("/loop", "redirected more than"),
    ],
)
def test_a_redirect_is_held_to_the_same_rules(store: Store, where: str, words: str) -> None:
    store.answers["/loop"] = moved(where.replace("PORT", str(store.port)))

    with pytest.raises(Unfetchable, match=words) as caught:
        content(store.url("/loop"), rules(store))

    assert "secret" not in str(caught.value)
    assert {path for path, _ in store.asked} == {"/loop"}


def test_a_redirect_leads_from_a_public_host_to_no_private_address(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the owner allows its name."""
    store.answers["/old"] = moved(f"https://mirror.example:{store.port}/file")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *more, **options: real("127.0.0.1", *more, **options)
    )
    allowed = rules(store, hosts=[f"mirror.example:{store.port}"])

    with pytest.raises(Unfetchable, match=r"mirror\.example has an address that is not public"):
        content(store.url("/old"), allowed)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, Unfetchable), (403, Unfetchable), (204, Unfetchable), (206, Unfetchable), (304, Unfetchable),
     (500, NotNow), (503, NotNow), (429, NotNow), (408, NotNow)],
)  # fmt: skip
def test_only_a_file_is_a_file(store: Store, status: int, kind: type[Exception]) -> None:
    store.answers["/file"] = Answer(status=status)

    with pytest.raises(kind, match=f"HTTP {status}"):
        content(store.url(), rules(store))


def test_a_host_may_ask_us_to_wait(store: Store) -> None:
    store.answers["/file"] = Answer(status=503, headers={"Retry-After": "17"})

    with pytest.raises(NotNow) as caught:
        content(store.url(), rules(store))

    assert caught.value.retry_after == 17


def test_a_file_that_broke_off_is_asked_for_again(store: Store) -> None:
    store.answers["/file"] = Answer(
        CONTENT[:100], None, headers={"Content-Length": str(len(CONTENT))}
    )

    with pytest.raises(NotNow):
        content(store.url(), rules(store))


def test_a_file_is_never_decompressed(store: Store) -> None:
    """What is hashed is what was sent; a bomb stays small."""
    bomb = gzip.compress(bytes(10_000_000))
    store.answers["/file"] = Answer(bomb, headers={"Content-Encoding": "gzip"})

    assert content(store.url(), rules(store)) == bomb


def test_a_size_that_is_announced_is_refused_before_it_comes(store: Store) -> None:
    with pytest.raises(Unfetchable, match="4000 bytes, and the node's policy allows 3999"):
        content(store.url(), rules(store, max_input_bytes=3999))


def test_a_host_that_sends_a_little_now_and_then_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(download, "_LEAST_BYTES_PER_SECOND", 10**9)
    store.answers["/file"] = Answer(b"x" * 100_000)
    began = time.monotonic()

    with pytest.raises(NotNow, match="too slowly"):
        content(store.url(), rules(store))

    assert time.monotonic() - began < 20


def test_a_certificate_of_nobody_known_is_refused(tmp_path: Path) -> None:
    with (
        https_store(tmp_path, make_authority()) as store,
        pytest.raises(NotNow, match="certificate"),
    ):
        content(store.url(), rules(store))
    assert store.asked == []


def test_a_certificate_of_another_name_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *more, **options: real("127.0.0.1", *more, **options)
    )

    with pytest.raises(NotNow, match="certificate"):
        content(store.url(host="other.example"), rules(store, f"other.example:{store.port}"))
    assert store.asked == []


def test_no_proxy_is_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert content(store.url(), rules(store)) == CONTENT


def test_a_host_that_is_away_is_asked_again(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(NotNow):
        content(f"https://localhost:{port}/x", rules(store, f"localhost:{port}"))


def test_what_is_told_of_a_url_holds_no_secret() -> None:
    assert host_of("https://data.example:8443/a?signature=secret") == "data.example:8443"


@pytest.fixture
def files(tmp_path: Path) -> FetchedFiles:
    return FetchedFiles(tmp_path / "fetched")


def left(files: FetchedFiles) -> list[str]:
    return sorted(str(path.relative_to(files.directory)) for path in files.directory.rglob("*"))


def test_a_file_is_kept_by_its_content_and_for_its_tenant(files: FetchedFiles) -> None:
    assert not files.touch("acme", SHA256)

    files.keep("acme", SHA256, [CONTENT[:10], CONTENT[10:]], lane="l", most=4000)

    assert files.path("acme", SHA256).read_bytes() == CONTENT
    assert files.path("acme", SHA256).stat().st_mode & 0o777 == 0o400
    assert files.touch("acme", SHA256)
    assert not files.touch("globex", SHA256)
    assert left(files) == ["acme", f"acme/{SHA256}"]


@pytest.mark.parametrize(
    ("sent", "most", "words"),
    [(CONTENT + b"x", 10_000, "sha256 is another"), (CONTENT, 3999, "more than the 3999 bytes"), (b"", 1, "sha256")],
    ids=["other", "large", "empty"],
)  # fmt: skip
def test_of_wrong_content_nothing_is_left(
    files: FetchedFiles, sent: bytes, most: int, words: str
) -> None:
    with pytest.raises(WrongContent, match=words):
        files.keep("acme", SHA256, [sent], lane="l", most=most)

    assert left(files) == ["acme"]


def test_what_broke_off_is_not_there(files: FetchedFiles) -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT[:10]
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        files.keep("acme", SHA256, broken(), lane="l", most=4000)

    assert left(files) == ["acme"]


def test_what_nobody_wanted_for_long_is_removed(files: FetchedFiles) -> None:
    import os

    old = time.time() - 31 * 86400
    for tenant, content in (("acme", b"a"), ("acme", b"b"), ("globex", b"a")):
        sha256 = hashlib.sha256(content).hexdigest()
        files.keep(tenant, sha256, [content], lane="l", most=10)
        os.utime(files.path(tenant, sha256), (old, old))
    a, b = (hashlib.sha256(content).hexdigest() for content in (b"a", b"b"))
    files.touch("acme", b)

    assert files.prune(30, {("globex", a)}) == 1
    assert left(files) == ["acme", f"acme/{b}", "globex", f"globex/{a}"]
