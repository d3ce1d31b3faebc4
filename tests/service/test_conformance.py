"""Our adapter keeps every MUST, and the kit finds each that a broken copy of it breaks, and no other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiida_byoc.contracts.conformance.adapter import try_adapter
from aiida_byoc.contracts.conformance.adapter_scene import AdapterSettings
from aiida_byoc.contracts.conformance.musts import Finding, table
from aiida_byoc.contracts.conformance.played import Played, Reply, Request
from aiida_byoc.contracts.conformance.played_product import PlayedProduct
from aiida_byoc.contracts.problems import ProblemError
from tests.service.adapter_process import ROOT, Adapter
from tests.service.keys import Keys
from tests.service.proxy import Broken, Passing, changed

NODES = [f"kit-{number}" for number in range(64)]
AT_A_TIME = 8
VERDICT_SECONDS = 15
"""As adapters are set up by default. One MUST waits for all of it; others need it on a machine with much to do."""


class Products:
    """One address for the products of several nodes: a product for each node."""

    def __init__(self) -> None:
        self.of = {node_id: PlayedProduct() for node_id in NODES}
        self._empty = PlayedProduct()
        self._played = Played(("127.0.0.1", 0), self._answer)
        self.url, self.stop = self._played.url, self._played.stop

    def _answer(self, request: Request) -> Reply | None:
        args = request.json["args"]
        node_id = args.get("node_id") or next(
            (each["node_id"] for each in args.get("updates", [])), None
        )
        return self.of.get(node_id, self._empty).answer(request)


@pytest.fixture(scope="module")
def products() -> Iterator[Products]:
    products = Products()
    yield products
    products.stop()


@pytest.fixture(scope="module")
def kit_settings(
    base_settings, keys: Keys, products: Products, tmp_path_factory
) -> Callable[..., dict[str, Any]]:
    """Settings of an adapter for many nodes that the kit plays one by one."""

    def made(product: Any) -> dict[str, Any]:
        settings = base_settings(tmp_path_factory.mktemp("settings"), keys, product)
        served = {"jwks": keys.jwks("n1"), "tenants": ["acme", "globex"]}
        nodes = {**settings["nodes"], **dict.fromkeys(NODES, served)}
        return settings | {"nodes": nodes, "verdict_timeout_seconds": VERDICT_SECONDS}

    return made


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, kit_settings, products: Products) -> Iterator[Adapter]:
    adapter = Adapter(tmp_path_factory.mktemp("conformance"), kit_settings(products))
    yield adapter
    adapter.stop()


def settings(keys: Keys, node_id: str) -> AdapterSettings:
    foreign = {"tenant_id": "globex", "client_token": keys.client("globex"), "node_id": "n2"}
    return AdapterSettings.model_validate(
        {
            "node_id": node_id,
            "node_token": keys.node(node_id, key="n1"),
            "tenant_id": "acme",
            "client_token": keys.client("acme"),
            "powerless_token": keys.client("acme", scope=""),
            "foreign": foreign,
            "patience_seconds": VERDICT_SECONDS + 10,
        }
    )


def broken(findings: list[Finding]) -> set[str]:
    return {each.must for each in findings if each.verdict == "broken"}


def body(passing: Passing) -> dict[str, Any]:
    return json.loads(passing.content)


def told(passing: Passing, content: Any, **changes: Any) -> Passing:
    return changed(passing, content=json.dumps(content).encode(), **changes)


def problem(passing: Passing, name: str) -> Passing:
    error = ProblemError(name)
    return told(
        passing,
        error.problem().model_dump(mode="json", exclude_none=True),
        status=error.kind.status,
    )


def is_submission(asked: Passing) -> bool:
    return asked.method == "POST" and asked.path.endswith("/jobs")


def is_delivery(asked: Passing) -> bool:
    return asked.path.endswith("/events")


def without(name: str) -> Callable[[Passing, Passing], Passing]:
    return lambda _, answered: changed(
        answered,
        headers={key: value for key, value in answered.headers.items() if key.lower() != name},
    )


def forgets_replays(asked: Passing, answered: Passing) -> Passing:
    if is_submission(asked) and "idempotency-replayed" in {
        name.lower() for name in answered.headers
    }:
        return told(
            answered, {**body(answered), "submission_id": "00000000-0000-4000-8000-000000000000"}
        )
    return answered


def takes_any_payload(asked: Passing, answered: Passing) -> Passing:
    if b"problems/idempotency-key-reused" in answered.content:
        return problem(answered, "job-id-conflict")
    return answered


def says_too_much_of_foreign_nodes(asked: Passing, answered: Passing) -> Passing:
    foreign = asked.path.startswith("/v1/nodes/n2") and answered.status == 404
    return problem(answered, "forbidden") if foreign else answered


def says_which_job_is_unknown(asked: Passing, answered: Passing) -> Passing:
    mine = (
        asked.path.startswith("/v1/nodes/kit-")
        and "/jobs/job-" in asked.path
        and answered.status == 404
    )
    return (
        told(answered, {**body(answered), "detail": "This node has no such job."})
        if mine
        else answered
    )


def acknowledges_at_once(asked: Passing) -> Passing | None:
    if not is_delivery(asked) or len(json.loads(asked.content)) != 1:
        return None
    wanted = {
        each["data"]["submission_id"]: each["data"]["seq"] + 1 for each in json.loads(asked.content)
    }
    return told(
        asked, {"next_seq": wanted, "quarantined": []}, status=200, headers={"X-Request-Id": "1"}
    )


def acknowledges_all_the_same(asked: Passing, answered: Passing) -> Passing:
    if is_delivery(asked) and answered.status == 503:
        wanted = {
            each["data"]["submission_id"]: each["data"]["seq"] + 1
            for each in json.loads(asked.content)
        }
        return told(answered, {"next_seq": wanted, "quarantined": []}, status=200)
    return answered


def loses_the_trace(asked: Passing) -> Passing:
    return changed(
        asked,
        headers={name: value for name, value in asked.headers.items() if name != "traceparent"},
    )


def is_no_wall(asked: Passing, answered: Passing) -> Passing:
    return (
        problem(answered, "not-found")
        if answered.status == 403 and asked.method == "GET"
        else answered
    )


def echoes(asked: Passing, answered: Passing) -> Passing:
    if answered.status != 422 or not is_submission(asked):
        return answered
    return told(answered, {**body(answered), "detail": f"No: {asked.content.decode()}"})


def has_words_of_its_own(_: Passing, answered: Passing) -> Passing:
    if answered.status != 415 and b"problems/node-mismatch" in answered.content:
        return told(answered, {**body(answered), "title": "Wrong node"})
    return answered


def asks_for_nothing(asked: Passing, answered: Passing) -> Passing:
    if not is_delivery(asked) or answered.status != 200:
        return answered
    return told(
        answered, {name: value for name, value in body(answered).items() if name != "missing_from"}
    )


def stops_nobody(asked: Passing, answered: Passing) -> Passing:
    if is_delivery(asked) and b"seq_conflict" in answered.content:
        jobs = {each["data"]["submission_id"] for each in json.loads(asked.content)}
        return told(answered, {**body(answered), "next_seq": dict.fromkeys(jobs, 4)})
    return answered


def takes_any_batch(asked: Passing) -> Passing:
    return (
        changed(asked, content=b"[{}]") if is_delivery(asked) and asked.content == b"[]" else asked
    )


def tells_wrong_states(asked: Passing) -> Passing:
    return changed(
        asked, content=asked.content.replace(b'"reason": "paused"', b'"reason": "halted"')
    )


def takes_any_poll(asked: Passing) -> Passing:
    return changed(asked, content=asked.content.replace(b": 31", b": 0"))


def takes_late_verdicts(asked: Passing, answered: Passing) -> Passing:
    late = asked.path.endswith("/verdict") and answered.status == 404
    return changed(answered, status=204, content=b"") if late else answered


def cancels_what_it_likes(asked: Passing) -> Passing:
    return changed(asked, content=asked.content.replace(b'"job_id": "job-2"', b'"job_id": "job-1"'))


def drops_heartbeats(asked: Passing, answered: Passing) -> Passing:
    if asked.path.endswith("/heartbeat") and answered.status == 200:
        return told(answered, {"received_at": "2026-01-01T00:00:00.000Z"})
    return answered


MUTANTS: list[tuple[dict[str, Any], set[str]]] = [
    ({"answer": forgets_replays}, {"submit.replayed"}),
    ({"answer": without("idempotency-replayed")}, {"submit.replayed"}),
    ({"answer": takes_any_payload}, {"submit.key-reused"}),
    ({"answer": without("location")}, {"submit.accepted"}),
    ({"ask": loses_the_trace}, {"submit.trace"}),
    ({"ask": takes_any_poll}, {"delivery.poll"}),
    ({"answer": takes_late_verdicts}, {"delivery.verdict-fits"}),
    ({"ask": cancels_what_it_likes}, {"cancel.addressed"}),
    ({"answer": says_too_much_of_foreign_nodes}, {"auth.foreign-alike"}),
    ({"answer": says_which_job_is_unknown}, {"auth.foreign-alike"}),
    ({"answer": is_no_wall}, {"auth.scope"}),
    ({"early": acknowledges_at_once}, {"events.stored-first"}),
    ({"answer": acknowledges_all_the_same}, {"events.unavailable"}),
    ({"answer": asks_for_nothing}, {"events.missing"}),
    ({"answer": stops_nobody}, {"events.refused-alone"}),
    ({"ask": takes_any_batch}, {"events.batch"}),
    ({"ask": tells_wrong_states}, {"projection.pure"}),
    ({"answer": drops_heartbeats}, {"heartbeat.passed-on"}),
    ({"answer": echoes}, {"problem.silent"}),
    ({"answer": has_words_of_its_own}, {"problem.catalogue"}),
    ({"answer": without("retry-after")}, {"problem.retry-after"}),
    ({"answer": without("x-request-id")}, {"answers.request-id"}),
]


def name_of(mutant: dict[str, Any]) -> str:
    [(_, change)] = mutant.items()
    return getattr(change, "__name__", "header")


Trial = Callable[[int], list[Finding]]


@pytest.fixture(scope="module")
def trial(adapter: Adapter, keys: Keys, products: Products) -> Trial:
    """Tries a broken copy; with a number beyond them, the adapter itself, and then where little is given."""
    fresh = iter(NODES)

    def tried(number: int) -> list[Finding]:
        node_id = next(fresh)
        known = settings(keys, node_id)
        if number == len(MUTANTS):
            return list(try_adapter(adapter.url, known, products.of[node_id]))
        if number > len(MUTANTS):
            alone = known.model_copy(update={"foreign": None, "powerless_token": None})
            return list(try_adapter(adapter.url, alone))
        product = products.of[node_id]
        mutant = dict(MUTANTS[number][0])
        if "early" in mutant:  # it loses its patience only with a product that does not answer
            hasty = mutant["early"]
            mutant["early"] = lambda asked: None if product.go_on.is_set() else hasty(asked)
        proxy = Broken(adapter.port, **mutant)
        try:
            return list(try_adapter(proxy.url, known, product))
        finally:
            proxy.stop()

    return tried


@pytest.fixture(scope="module")
def found(trial: Trial) -> list[list[Finding]]:
    """What the kit finds of each; several at a time, since most of it is waiting."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(trial, range(len(MUTANTS) + 2)))


def test_our_adapter_keeps_every_must(found: list[list[Finding]]) -> None:
    findings = found[-2]

    assert {each.verdict for each in findings} == {"kept"}, table(findings)
    assert len(findings) > 40


def test_without_a_product_and_strangers_it_says_what_was_not_tested(
    found: list[list[Finding]],
) -> None:
    untested = {each.must for each in found[-1] if each.verdict == "not tested"}

    assert broken(found[-1]) == set(), table(found[-1])
    assert {
        "auth.foreign-alike",
        "auth.tenants-apart",
        "auth.scope",
        "events.stored-first",
    } <= untested
    assert all(each.evidence.startswith("give `") for each in found[-1] if each.must in untested)


NAMES = [f"{name_of(mutant)}-{min(musts)}" for mutant, musts in MUTANTS]


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=NAMES)
def test_a_broken_adapter_is_found_out(number: int, found: list[list[Finding]]) -> None:
    findings, expected = found[number], MUTANTS[number][1]

    assert broken(findings) == expected, table(findings)


def test_the_command_tries_an_adapter_and_plays_its_product(
    tmp_path: Path, keys: Keys, kit_settings: Callable[..., dict[str, Any]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    product = SimpleNamespace(url=f"http://127.0.0.1:{port}")
    adapter = Adapter(tmp_path, kit_settings(product))
    known = settings(keys, NODES[0]).model_copy(update={"product": f"127.0.0.1:{port}"})
    (tmp_path / "kit.json").write_text(known.model_dump_json())
    command = [sys.executable, "-m", "aiida_byoc.contracts.conformance", "--adapter", adapter.url]

    ended = subprocess.run(
        [*command, "--settings", tmp_path / "kit.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    adapter.stop()

    assert ended.stdout.splitlines()[-1].endswith("kept, 0 broken, 0 not tested"), (
        ended.stdout + ended.stderr
    )
    assert ended.returncode == 0
