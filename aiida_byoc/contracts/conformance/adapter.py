"""The role of an adapter: all that it MUST do, and what every answer of it must be like."""

from __future__ import annotations

from collections.abc import Iterator

from aiida_byoc.contracts.conformance.adapter_commands import ABSENT, COMMANDS
from aiida_byoc.contracts.conformance.adapter_events import EVENTS
from aiida_byoc.contracts.conformance.adapter_scene import AdapterScene, AdapterSettings
from aiida_byoc.contracts.conformance.adapter_walls import WALLS
from aiida_byoc.contracts.conformance.musts import Finding, Musts, hold
from aiida_byoc.contracts.conformance.played import Played
from aiida_byoc.contracts.conformance.played_product import PlayedProduct
from aiida_byoc.contracts.conformance.wire import refused
from aiida_byoc.contracts.problems import CATALOGUE, Problem
from aiida_byoc.contracts.validation import validated

__all__ = ["ANSWERS", "try_adapter"]

ANSWERS: Musts[AdapterScene] = Musts()
must = ANSWERS.must


@must("problem.silent", "errors.md#tenant-and-auth-boundary")
def silent(scene: AdapterScene) -> str:
    """No problem repeats a value."""
    marker = "canary7f3a"
    answer = scene.submit(scene.command(workspace_id=f"{marker} {marker}"))
    refused(answer, "validation-failed")
    hold(marker.encode() not in answer.body, "the value that was sent stands in the answer")
    return answer.told


@must("problem.catalogue", "errors.md#producer-and-consumer")
def catalogue(scene: AdapterScene) -> str:
    """Every answer from 400 on is application/problem+json of the catalogue: type, title, status and retry."""
    problems = [each for each in scene.heard if each.status >= 400]
    for answer in problems:
        kind = answer.headers.get_content_type()
        hold(kind == "application/problem+json", f"{answer.told} is {kind}")
        problem = validated(Problem, answer.json)
        hold(answer.problem in CATALOGUE, f"{answer.told}: the catalogue has no such type")
        known = CATALOGUE[answer.problem or ""]
        said = (problem.status, answer.status, problem.title, problem.retry)
        expected = (known.status, known.status, known.title, known.retry)
        hold(said == expected, f"{answer.told}: {said} instead of {expected}")
    return f"{len(problems)} problems, {len({each.problem for each in problems})} kinds"


@must("problem.retry-after", "errors.md#ordering-and-retry-rule")
def retry_after(scene: AdapterScene) -> str:
    """Every 429, 503 and 504 has Retry-After in seconds."""
    answers = [each for each in scene.heard if each.status in {429, 503, 504}]
    for answer in answers:
        said = answer.headers.get("Retry-After", "")
        hold(said.isdigit() and int(said) >= 1, f"{answer.told}: Retry-After is {said!r}")
    return f"{len(answers)} answers"


@must("answers.request-id", "errors.md#what-to-log")
def request_id(scene: AdapterScene) -> str:
    """Every answer carries an X-Request-Id."""
    without = [each.told for each in scene.heard if not each.headers.get("X-Request-Id")]
    hold(not without, f"{len(without)} answers have none, first {without[:1]}")
    return f"{len(scene.heard)} answers"


def try_adapter(
    url: str, settings: AdapterSettings, product: PlayedProduct | None = None
) -> Iterator[Finding]:
    """Try all MUSTs on the adapter at this address.

    Args:
        product: one that somebody lets the adapter reach; by default the kit listens where the settings say.
    """
    listener = None
    if product is None and settings.product is not None:
        host, _, port = settings.product.rpartition(":")
        product = PlayedProduct()
        listener = Played((host, int(port)), product.answer)
    scene = AdapterScene(url, settings, product)
    try:
        yield from ABSENT.try_all(scene)
        scene.connect()
        yield from COMMANDS.try_all(scene)
        yield from WALLS.try_all(scene)
        lacks = None if product else "give `product`: where the adapter believes its product to be"
        yield from EVENTS.try_all(scene, lacks)
        yield from ANSWERS.try_all(scene)
    finally:
        scene.stop()
        if product:
            product.go_on.set()
        if listener:
            listener.stop()
