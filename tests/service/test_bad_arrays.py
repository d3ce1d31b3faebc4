"""An array with a fault is refused by the adapter with its row and column, before any node hears of it."""

from __future__ import annotations

import pytest

from tests.array_faults import FAULTS
from tests.service.node import PROBLEMS


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_array_is_refused_before_the_node(fault, node, http, keys, command):
    workload, field, says = FAULTS[fault]
    headers = {
        "Authorization": f"Bearer {keys.client('acme')}",
        "Idempotency-Key": '"key-of-an-array-0001"',
    }

    answer = http.post("/v1/nodes/n1/jobs", json={**command, "workload": workload}, headers=headers)

    assert answer.status_code == 422
    assert answer.json()["type"] == PROBLEMS + "validation-failed"
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert says in error["message"]
    assert node.received == []
