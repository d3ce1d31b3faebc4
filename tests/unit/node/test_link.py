"""The way to the adapter: real TLS with an authority of the test's own, and a real CONNECT proxy."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.agent.link import AdapterUnavailable, link, reach
from aiida_byoc.node import NodeSettings, SettingsError
from tests.connect_proxy import Proxy, connect_proxy
from tests.https_store import Answer, Store, https_store


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Every name is this machine's."""
    with connect_proxy(lambda _, port: socket.create_connection(("127.0.0.1", port))) as proxy:
        yield proxy


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with https_store(tmp_path) as store:
        store.answers["/livez"] = Answer(b"{}")
        yield store


def settings(store: Store, host: str = "localhost", **changes: Any) -> NodeSettings:
    return NodeSettings.model_validate(
        {
            "node_id": "n1",
            "adapter_url": store.url("", host),
            "key_file": "/nowhere/node.pem",
            "policy_file": "/nowhere/policy.toml",
            "image_store": "/nowhere",
            "code": "byoc@slurm",
            "ca_file": store.ca_file,
            **changes,
        }
    )


def test_an_authority_of_ones_own_is_believed_where_it_is_named(store: Store) -> None:
    reach(settings(store))

    assert store.names == ["localhost"]
    with pytest.raises(AdapterUnavailable, match="name that as ca_file"):
        reach(settings(store, ca_file=None))
    with pytest.raises(AdapterUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        reach(settings(store, ca_file=None, adapter_url=store.url("", "127.0.0.1")))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_an_authority_that_cannot_be_read_is_one_sentence(
    store: Store, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "own.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError, match=r"ca_file .*own\.pem cannot be used: .*PEM"):
        link(settings(store, ca_file=file))


def test_the_environments_proxy_is_used(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy sees a name and a port; TLS is the adapter's. The name is the proxy's to resolve."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)

    reach(settings(store, "store.example"))

    assert proxy.asked[0].startswith(f"CONNECT store.example:{store.port} HTTP/1.1\r\n")
    assert store.names == ["store.example"]


def test_what_needs_no_proxy_goes_directly(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost")

    reach(settings(store))

    assert proxy.asked == []
    assert store.asked == [("/livez", f"localhost:{store.port}")]


def test_the_settings_proxy_is_used_before_the_environments(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    mine = proxy.url.replace("http://", "http://lab:secret@")

    reach(settings(store, "store.example", proxy=mine))

    basic = base64.b64encode(b"lab:secret").decode()
    assert f"Proxy-Authorization: Basic {basic}" in proxy.asked[0]


def test_a_proxy_that_refuses_is_told_without_its_password(store: Store, proxy: Proxy) -> None:
    proxy.refuses = True
    mine = proxy.url.replace("http://", "http://lab:canary@")

    with pytest.raises(AdapterUnavailable, match="ProxyError: 407") as caught:
        reach(settings(store, proxy=mine))

    assert "canary" not in str(caught.value)
    assert store.asked == []
