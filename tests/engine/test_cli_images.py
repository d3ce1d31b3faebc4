"""`verdi data byoc images …`: what an operator types, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aiida_byoc.cli import byoc
from aiida_byoc.cli.common import settings_path
from aiida_byoc.runtimes.images import ImageStore
from lab import registry
from lab.paths import LabPaths
from tests.builders import POLICY
from tests.unit.node import oci
from tests.unit.node.oci import file, index, layer, layout
from tests.unit.node.test_oci import HERE

Run = Callable[..., Result]
UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def run(node: Any, profile: Any, store: ImageStore, policy: Path) -> Iterator[Run]:
    """Run a command of `verdi data byoc images` on a node with a store of its own."""
    path = settings_path(profile.name)
    changes = {"image_store": store.directory, "policy_file": policy}
    node.settings.model_copy(update=changes).save(path)
    yield lambda *words: CliRunner().invoke(byoc, ["images", *words], catch_exceptions=False)
    path.unlink()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def name(policy: Path) -> Callable[..., None]:
    """Let the policy name digests."""

    def name(*digests: str, tag: str | None = None) -> None:
        listed = ", ".join(f'"{digest}"' for digest in digests)
        tags = f'tags = {{ "{tag}" = "{digests[0]}" }}' if tag else ""
        policy.write_text(
            f'{POLICY}\n[images."registry.example/tool"]\ndigests = [{listed}]\n{tags}'
        )

    return name


def added(store: ImageStore, source: Path, content: str, *, unpacked: bool = True) -> str:
    digest = layout(source, [layer(file("content", content))])
    store.add(source, digest)
    if unpacked:
        store.rootfs(digest)
    return digest


@pytest.mark.parametrize("packed", [None, "w", "w:gz"])
def test_a_layout_or_an_archive_is_added(
    run: Run, store: ImageStore, source: Path, tmp_path: Path, packed: str | None
) -> None:
    """And what is left to do is said in the policy's own words."""
    digest = layout(source, [layer(file("a"))])
    place = oci.archive(source, tmp_path / "image.tar", packed) if packed else source

    result = run("add", str(place))

    assert result.exit_code == 0, result.output
    assert f"{digest} is in the store, unpacked at {store.rootfs(digest)}" in result.output
    assert f'[images."localhost/NAME"]\ndigests = ["{digest}"]\n' in result.output


def test_of_an_index_the_operator_hears_what_came(run: Run, source: Path) -> None:
    digest = layout(source, [layer(file("a"))])
    top = index(source, {f"linux/{HERE}": digest})

    result = run("add", str(source), top)

    assert f"{top} is an index; linux/{HERE} is {digest}" in result.output
    assert f'digests = ["{digest}"]' in result.output


@pytest.fixture(scope="module")
def oci_registry(paths: LabPaths) -> Iterator[registry.Registry]:
    yield registry.start(paths)
    registry.stop(paths)


def test_a_registry_is_pulled_from(
    run: Run,
    store: ImageStore,
    source: Path,
    oci_registry: registry.Registry,
    name: Callable[..., None],
) -> None:
    """By tag: the digest is told, and the lines that approve both; once they are there, by which names jobs call it."""
    digest = layout(source, [layer(file("a"))])
    registry.push(oci_registry, source, "lab/tool", "1.4")
    reference = f"docker://{oci_registry.host}/lab/tool"

    by_tag = run("add", f"{reference}:1.4")
    name(digest, tag="2")
    by_digest = run("add", f"{reference}@{digest}")
    pinned = run("add", f"{reference}:1.4", digest)
    moved = run("add", f"{reference}:1.4", UNKNOWN)

    assert f"{reference}:1.4 is {digest}\n" in by_tag.output
    section = f'[images."{oci_registry.host}/lab/tool"]\ndigests = ["{digest}"]\ntags = {{ "1.4" = "{digest}" }}\n'
    assert by_tag.output.endswith(section)
    assert by_digest.output.endswith("the policy names it registry.example/tool:2\n")
    assert (pinned.exit_code, moved.exit_code) == (0, 1)
    assert f"{reference}:1.4 is {digest}, not {UNKNOWN}" in moved.output
    assert store.is_unpacked(digest)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["nowhere"],
            "nowhere is neither a directory nor a file, and does not begin with docker://",
        ),
        (["docker://python:3"], "is no full reference"),
        (["docker://registry.example/a@sha256:1"], "is not a sha256 digest"),
        ([f"docker://a.example/a@{UNKNOWN}", "sha256:" + "1" * 64], "names another digest than"),
        (["{source}", "latest"], "'latest' is not a sha256 digest"),
        (["{source}", UNKNOWN], f"the blob {UNKNOWN} is missing from the image"),
        (["{store}"], "is no OCI layout: it has no oci-layout"),
        (["{source}/index.json"], "is no whole tar archive"),
        (["{source}", "--max-mib", "1"], "has 2 MiB, and 1 MiB are allowed"),
    ],
)
def test_what_cannot_be_added_is_told_in_a_sentence(
    run: Run, store: ImageStore, source: Path, words: list[str], sentence: str
) -> None:
    layout(source, [layer(file("a", "x" * 2 * 2**20))])
    store.directory.mkdir()

    result = run("add", *(word.format(source=source, store=store.directory) for word in words))

    assert result.exit_code == 1
    assert sentence in result.output
    assert result.output.count("\n") == 1
    assert store.digests() == []


def test_a_store_that_cannot_be_written_is_told_with_its_place(
    run: Run, store: ImageStore, source: Path
) -> None:
    layout(source, [layer(file("a"))])
    store.directory.write_text("a file")

    result = run("add", str(source))

    assert result.exit_code == 1
    assert f"the image store cannot be used: {store.directory}" in result.output


def test_the_list_says_what_is_there_and_what_is_not(
    run: Run, store: ImageStore, source: Path, name: Callable[..., None]
) -> None:
    """By the policy's names, as a table and for programs."""
    unpacked = added(store, source, "one")
    packed = added(store, source, "two", unpacked=False)
    damaged = added(store, source, "three")
    (store.layout(damaged) / "blobs/sha256" / damaged.removeprefix("sha256:")).unlink()
    name(unpacked, UNKNOWN, tag="1")

    table = run("list").output
    rows = {row["digest"]: row for row in json.loads(run("list", "--json").output)}

    assert {digest: row["state"] for digest, row in rows.items() if "d" not in row["names"]} == {
        unpacked: "unpacked",
        packed: "packed",
        damaged: "damaged",
        UNKNOWN: "missing",
        "sha256:" + "d" * 64: "missing",
    }
    assert rows[unpacked]["names"] == ["registry.example/tool:1"]
    assert rows[UNKNOWN]["names"] == [f"registry.example/tool@{UNKNOWN}"]
    assert rows[unpacked]["size"] == store.image(unpacked).size
    line = next(line for line in table.splitlines() if unpacked in line)
    assert line.split() == [unpacked, "unpacked", "0.0", "MiB", "registry.example/tool:1"]


def test_the_list_needs_no_policy(run: Run, store: ImageStore, source: Path, policy: Path) -> None:
    digest = added(store, source, "one")
    policy.write_text("tenants = [")

    result = run("list")

    assert result.exit_code == 0
    assert digest in result.output
    assert "is not TOML" in result.output


def test_a_tampered_image_is_found_and_repaired(run: Run, store: ImageStore, source: Path) -> None:
    """Exit status 1, what was altered, and the command that helps; which does."""
    digest, sound = added(store, source, "one"), added(store, source, "two")
    root = store.rootfs(digest)
    (root / "content").write_text("else")
    for number in range(9):
        (root / f"new{number}").touch()

    before = run("verify")
    told = json.loads(run("verify", "--json", digest).output)
    other = run("verify", sound)
    repaired = run("verify", "--repair", digest)
    after = run("verify")

    assert [each.exit_code for each in (before, other, repaired, after)] == [1, 0, 0, 0]
    assert f"{digest}  ALTERED\n    'content' was changed" in before.output
    assert "    and 5 more\n" in before.output
    assert f"    helps: verdi data byoc images verify --repair {digest}\n" in before.output
    assert f"{sound}  sound" in before.output
    assert len(told[0]["files"]) == 10
    assert store.rootfs(digest).joinpath("content").read_text() == "one"


def test_a_damaged_layout_is_repaired_from_its_source(
    run: Run, store: ImageStore, source: Path
) -> None:
    """What was unpacked of it stays in use."""
    digest = added(store, source, "one")
    layer_ = store.image(digest).layers[0].digest.removeprefix("sha256:")
    (store.layout(digest) / "blobs/sha256" / layer_).write_bytes(b"")

    found = run("verify", "--repair", digest)
    run("add", str(source), digest)

    assert found.exit_code == 1
    assert f"helps: verdi data byoc images add SOURCE {digest}" in found.output
    assert run("verify").exit_code == 0


@pytest.mark.parametrize("word", [UNKNOWN, "latest"])
def test_what_cannot_be_verified_is_no_success(run: Run, word: str) -> None:
    result = run("verify", word)

    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_prune_removes_what_nobody_needs(
    run: Run, store: ImageStore, source: Path, name: Callable[..., None], node: Any
) -> None:
    """The policy's images stay, and those of jobs under way, whatever the policy says by now."""
    named, used, neither = (added(store, source, content) for content in ("1", "2", "3"))
    name(named)
    submission = node.accept(placement=used)
    (store.directory / "unpacked" / f".draft-{'a' * 64}-x").mkdir()

    tried = run("prune", "--dry-run")
    assert set(store.digests()) == {named, used, neither}
    done = run("prune")

    short = neither.removeprefix("sha256:")
    assert f"would remove layouts/{short}\n" in tried.output
    assert f"would remove unpacked/{short}\n" in tried.output
    assert "MiB freed" in done.output
    assert set(store.digests()) == {named, used}
    assert {path.name for path in (store.directory / "unpacked").iterdir()} == {
        named.removeprefix("sha256:"),
        used.removeprefix("sha256:"),
    }
    node.connection.execute(
        "UPDATE byoc.job SET state = 'failed' WHERE submission_id = %s", (submission,)
    )
    run("prune")
    assert store.digests() == [named]


def test_prune_without_a_policy_removes_nothing(
    run: Run, store: ImageStore, source: Path, policy: Path
) -> None:
    digest = added(store, source, "one")
    policy.write_text("tenants = [")

    result = run("prune")

    assert (result.exit_code, "is not TOML" in result.output) == (1, True)
    assert store.digests() == [digest]
