"""Names of images at registries are written in full, or refused."""

from __future__ import annotations

import pytest

from aiida_byoc.runtimes.oci import ImageError
from aiida_byoc.runtimes.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("registry.example/lab/tool", "registry.example", "lab/tool", None, None),
        ("registry.example:5000/tool:1.4", "registry.example:5000", "tool", "1.4", None),
        (f"localhost/a/b__c/d.e-f@{DIGEST}", "localhost", "a/b__c/d.e-f", None, DIGEST),
        (f"host:1/x:t@{DIGEST}", "host:1", "x", "t", DIGEST),
        ("[::1]:5000/x", "[::1]:5000", "x", None, None),
        ("docker.io/python:3", "docker.io", "library/python", "3", None),
        ("docker.io/acme/tool", "docker.io", "acme/tool", None, None),
    ],
)
def test_a_reference_is_read(
    text: str, host: str, repository: str, tag: str | None, digest: str | None
) -> None:
    read = Reference.parse(text)

    assert read == Reference(host=host, repository=repository, tag=tag, digest=digest)
    assert read.name == f"{host}/{repository}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "python",
        "python:3",
        "library/python",
        "acme/tool:1",
        "https://registry.example/tool",
        "registry.example",
        "registry.example/",
        "registry.example/Tool",
        "registry.example/a//b",
        "registry.example/../b",
        "registry.example/a:",
        "registry.example/a:b:c",
        "registry.example/a?x=1",
        "registry.example/a#x",
        "user@registry.example/a",
        "registry.example:port/a",
        "registry.example/a\n",
        "registry.example/a b",
    ],
)
def test_what_is_no_full_reference_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="no full reference; write host/repository"):
        Reference.parse(text)


def test_a_digest_has_its_form() -> None:
    with pytest.raises(ImageError, match="is not a sha256 digest"):
        Reference.parse("registry.example/a@sha256:1")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org:5000", False),
        ("10.0.0.1:5000", False),
        ("registry.example", False),
    ],
)
def test_only_this_machine_is_this_machine(host: str, here: bool) -> None:
    assert Reference(host=host, repository="a").is_loopback is here
