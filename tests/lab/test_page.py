"""The lab's page: built once per content, served to whoever has its address alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from lab import page
from lab.paths import LabPaths
from lab.process import LabError

TENANTS = [{"tenant_id": "acme", "user_id": "user-of-acme", "token": "secret-token"}]
PAGE = '<!doctype html><title>Jobs</title><script type="module" src="./main.ts"></script>'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A page of two lines."""
    directory = tmp_path / "web"
    directory.mkdir()
    (directory / "index.html").write_text(PAGE)
    (directory / "main.ts").write_text("const said: string = 'first';\ndocument.title = said;\n")
    (directory / "vite.config.ts").write_text(
        f"export default {{ root: {json.dumps(str(directory))}, base: './' }};\n"
    )
    return directory


def test_a_page_is_built_once_and_again_when_it_changes(source: Path, tmp_path: Path) -> None:
    """The former build goes."""
    cache = tmp_path / "cache"
    first = page.build(source, cache)
    (first / "mark").touch()
    assert page.build(source, cache) == first
    assert (first / "mark").exists()
    [script] = first.glob("assets/*.js")
    assert "first" in script.read_text()

    (source / "main.ts").write_text("document.title = 'second';\n")
    second = page.build(source, cache)

    [script] = second.glob("assets/*.js")
    assert "second" in script.read_text()
    assert [each for each in cache.iterdir() if each.is_dir()] == [second]


def test_a_page_that_cannot_be_built_says_why_and_leaves_nothing(
    source: Path, tmp_path: Path
) -> None:
    """The message is the builder's."""
    (source / "main.ts").write_text("import './nowhere';\n")

    with pytest.raises(LabError, match="nowhere"):
        page.build(source, tmp_path / "cache")

    assert [each for each in (tmp_path / "cache").iterdir() if each.is_dir()] == []


def test_a_repository_without_a_page_has_none(tmp_path: Path) -> None:
    """Then the stack starts without."""
    with page.building(tmp_path) as built:
        assert built is None


def test_the_page_is_served_with_its_configuration_below_a_secret(
    paths: LabPaths, tmp_path: Path
) -> None:
    """Files, types, `config.json`; and a secret that no log and no command line holds."""
    directory = tmp_path / "built"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text(PAGE)
    (directory / "assets" / "main.js").write_text("1")
    (tmp_path / "outside").write_text("not the page's")
    url, daemon = page.start(
        paths,
        directory,
        convex_url="http://127.0.0.1:1",
        adapter_url="http://127.0.0.1:2",
        tenants=TENANTS,
    )
    assert url.startswith(f"{page.origin(paths)}/")
    key = url.rstrip("/").rpartition("/")[2]
    with httpx.Client(trust_env=False) as http:
        index, script, config = (
            http.get(url + name) for name in ("", "assets/main.js?x=1", "config.json")
        )
        assert (index.status_code, index.text) == (200, PAGE)
        assert script.headers["Content-Type"] == "text/javascript"
        assert config.json() == {
            "convex_url": "http://127.0.0.1:1",
            "adapter_url": "http://127.0.0.1:2",
            "tenants": TENANTS,
        }
        for response in (index, script, config):
            assert response.headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in response.headers
        assert http.head(url).content == b""
        missing = ["nothing", "../outside", "%2e%2e/outside", "assets", "..%2foutside"]
        others = [f"{page.origin(paths)}/", f"{page.origin(paths)}/config.json"]
        for address in [*others, *(url + name for name in missing)]:
            response = http.get(address)
            assert response.status_code == 404, address
            assert "secret-token" not in response.text
        assert http.post(url).status_code == 501
    assert key not in daemon.log.read_text()
    assert key.encode() not in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    with socket.socket() as other:
        other.bind(("127.0.0.2", paths.ports("page")[0]))  # would fail if it held every address
