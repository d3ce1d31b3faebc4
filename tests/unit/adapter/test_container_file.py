"""The container file that we ship names what is there: it is built by hand, where its base image is to be had."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docs" / "install" / "Containerfile"
INSTRUCTIONS = [
    (line.partition(" ")[0], line.partition(" ")[2])
    for line in re.sub(r"\\\n\s*", "", FILE.read_text()).splitlines()
    if line and not line.startswith("#")
]


def of(word: str) -> list[str]:
    """What stands after an instruction, wherever it is."""
    return [rest for name, rest in INSTRUCTIONS if name == word]


def test_what_is_copied_is_there() -> None:
    copied = [line.split()[:-1] for line in of("COPY") if not line.startswith("--from=")]

    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []


def test_every_dependency_is_the_locked_one() -> None:
    installs = [line for line in of("RUN") if "pip install" in line]

    assert installs
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)


def test_it_runs_the_adapter_as_nobody() -> None:
    [user], [command] = of("USER"), of("CMD")[-1:]
    program = Path(json.loads(command)[0]).name

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"{program} = " in (ROOT / "setup.cfg").read_text()


def test_its_health_is_a_route_of_the_adapter() -> None:
    [check] = of("HEALTHCHECK")
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())

    [path] = re.findall(r"http://127\.0\.0\.1:8080(/\w+)", check)
    assert path in document["paths"]


def test_no_base_image_floats() -> None:
    assert all(":" in line and ":latest" not in line for line in of("FROM"))
