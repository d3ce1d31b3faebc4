"""What nobody foresaw is a constant problem that says nothing but how to find it in the log."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from adapter.app import create_app
from adapter.problems import problem_response
from aiida_byoc.contracts.problems import CATALOGUE, ProblemError


def test_an_unforeseen_error_is_constant_and_found_by_its_instance(make_settings, caplog):
    app = create_app(make_settings())

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("hunter2")

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://adapter") as http:
            return await http.get("/broken")

    response = asyncio.run(call())

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == CATALOGUE["internal-error"].remedy
    assert response.json()["instance"] == f"urn:uuid:{response.headers['X-Request-Id']}"
    assert "hunter2" not in response.text
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.request_id == response.headers["X-Request-Id"]
    assert "hunter2" in str(record.exc_info[1])


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_problem_has_the_headers_of_its_status(name):
    response = problem_response(ProblemError(name))

    assert response.status_code == CATALOGUE[name].status
    assert response.media_type == "application/problem+json"
    assert ("www-authenticate" in response.headers) is (response.status_code == 401)
    assert ("retry-after" in response.headers) is (response.status_code in {429, 503, 504})
