"""The functions, over HTTP, answer the cases that the fake product of the adapter's tests is held to."""

from __future__ import annotations

import pytest

from aiida_byoc.contracts.conformance.receiver_cases import CASES, play


@pytest.mark.parametrize("case", CASES)
def test_a_node_gets_the_answers_of_the_contract(case, deployment, tenant):
    base = {**tenant.update(), "submission": f"00000000-0000-4000-8000-{tenant.suffix}"}

    def call(updates):
        path, args = "projections:applyProjections", {"updates": updates}
        return deployment.call("mutation", path, args, tenant.service())

    def accept(step):
        before = {"before": step.before} if step.before else {}
        args = {"node_id": tenant.node_id, "epoch": step.epoch, **before}
        answer = deployment.call("mutation", "nodes:acceptEpoch", args, deployment.admin)
        assert answer["value"] == {"changed": True}

    play(case, base, call, accept)
