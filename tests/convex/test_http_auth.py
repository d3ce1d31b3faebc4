"""Who may call what: visibility, keys and tokens over HTTP.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import jwt
import pytest

APPLY = "projections:applyProjections"
JOB = {"job_id": "j1"}


class TestVisibility:
    """An internal function exists for the holder of the key alone; to others it is as unknown as any."""

    @pytest.fixture(params=["nobody", "a user", "the adapter"])
    def authorization(self, request, tenant):
        return {"nobody": None, "a user": tenant.user, "the adapter": tenant.service()}[
            request.param
        ]

    @pytest.mark.parametrize("path", ["tenancy:seed", "tenancy:nothing", "nowhere:nothing"])
    def test_hidden(self, deployment, authorization, path):
        answer = deployment.call("mutation", path, {}, authorization)
        assert deployment.error_code(answer) is None

    def test_hidden_by_path_too(self, deployment, authorization):
        response = deployment.post("/api/run/tenancy/seed", {"args": {}}, authorization)
        assert response.status_code == 200
        assert deployment.error_code(response.json()) is None

    def test_open_to_the_key(self, deployment, tenant):
        response = deployment.post(
            "/api/run/tenancy/seed", {"args": tenant.seeds}, deployment.admin
        )
        assert response.json()["value"] == {"changed": 0}

    @pytest.mark.parametrize("kind", ["query", "action"])
    def test_a_mutation_is_run_as_nothing_else(self, deployment, tenant, kind):
        args = {"updates": [tenant.update()]}
        assert deployment.error_code(deployment.call(kind, APPLY, args, tenant.service())) is None
        missing = tenant.query("jobs:get", **JOB)
        assert deployment.error_code(missing) == "not_found"

    @pytest.mark.parametrize("kind", ["mutation", "action"])
    def test_a_query_is_run_as_nothing_else(self, deployment, tenant, kind):
        args = {"tenant_id": tenant.tenant_id}
        answer = deployment.call(kind, "nodes:list", args, tenant.user)
        assert deployment.error_code(answer) is None


class TestKeys:
    @pytest.mark.parametrize("key", ["wrong", "prod:name|wrong", ""])
    def test_a_wrong_key_is_refused(self, deployment, key):
        body = {"path": "tenancy:seed", "args": {}}
        response = deployment.post("/api/mutation", body, f"Convex {key}x")
        assert response.status_code == 403
        assert response.json()["code"] == "BadDeployKey"

    def test_a_key_may_carry_the_name_of_its_deployment(self, deployment, real_url):
        if real_url is not None:
            pytest.skip("a real key has its own prefix already")
        authorization = f"Convex prod:name|{deployment.convex.admin_key}"
        assert deployment.call("mutation", "tenancy:seed", {}, authorization)["value"] == {
            "changed": 0
        }

    def test_a_key_may_act_as_a_user(self, deployment, tenant):
        tenant.apply(tenant.update())
        identity = {"issuer": deployment.product.iss, "subject": tenant.user_id}
        encoded = base64.b64encode(json.dumps(identity).encode()).decode()
        args = {"tenant_id": tenant.tenant_id, **JOB}
        answer = deployment.call("query", "jobs:get", args, f"{deployment.admin}:{encoded}")
        assert answer["value"]["job_id"] == "j1"

    def test_a_key_alone_is_nobody(self, deployment, tenant):
        args = {"tenant_id": tenant.tenant_id, **JOB}
        answer = deployment.call("query", "jobs:get", args, deployment.admin)
        assert deployment.error_code(answer) == "unauthenticated"


class TestTokens:
    """A token that does not hold is refused with 401 before the function, whatever it asks for."""

    def ask(self, deployment, tenant, token):
        paging = {"numItems": 1, "cursor": None}
        args = {"tenant_id": tenant.tenant_id, "paginationOpts": paging}
        return deployment.post("/api/query", {"path": "jobs:list", "args": args}, f"Bearer {token}")

    @pytest.mark.parametrize(
        "claims",
        [
            {"lifetime": -60},
            {"exp": None},
            {"aud": None},
            {"aud": "another"},
            {"iss": None},
            {"iss": "https://elsewhere.test"},
            {"sub": None},
            {"nbf": 2**33},
        ],
        ids=str,
    )
    def test_a_claim_that_does_not_hold(self, deployment, tenant, claims):
        token = deployment.product.token(tenant.user_id, **claims)
        response = self.ask(deployment, tenant, token)
        assert response.status_code == 401, response.text
        assert set(response.json()) >= {"code", "message"}

    def test_the_clock_may_differ_by_five_seconds(self, deployment, tenant, real_url):
        if real_url is not None:
            pytest.skip("the offset of the deployment's clock is unknown")
        token = deployment.product.token(tenant.user_id, lifetime=-3)
        assert self.ask(deployment, tenant, token).status_code == 200

    def test_an_audience_among_others(self, deployment, tenant):
        token = deployment.product.token(tenant.user_id, aud=["another", "convex"])
        assert self.ask(deployment, tenant, token).status_code == 200

    def test_another_key_under_the_same_name(self, deployment, tenant):
        stranger = replace(deployment.service, kid=deployment.product.kid)
        forged = replace(stranger, iss=deployment.product.iss).token(tenant.user_id)
        assert self.ask(deployment, tenant, forged).status_code == 401

    @pytest.mark.parametrize("headers", [{"kid": "unknown"}, {}])
    def test_a_key_that_nobody_knows(self, deployment, tenant, headers):
        product = deployment.product
        claims = jwt.decode(product.token(tenant.user_id), options={"verify_signature": False})
        token = jwt.encode(claims, product.key, "ES256", headers=headers)
        assert self.ask(deployment, tenant, token).status_code == 401

    def test_changed_after_signing(self, deployment, tenant, rival):
        header, payload, signature = deployment.product.token(rival.user_id).split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        claims["sub"] = tenant.user_id
        changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        assert self.ask(deployment, tenant, f"{header}.{changed}.{signature}").status_code == 401

    def test_unsigned(self, deployment, tenant):
        claims = jwt.decode(
            deployment.product.token(tenant.user_id), options={"verify_signature": False}
        )
        unsigned = jwt.encode(claims, None, "none", headers={"kid": deployment.product.kid})
        assert self.ask(deployment, tenant, unsigned).status_code == 401

    @pytest.mark.parametrize("token", ["x", "a.b.c", "...."])
    def test_no_token_at_all(self, deployment, tenant, token):
        assert self.ask(deployment, tenant, token).status_code == 401

    @pytest.mark.parametrize("authorization", ["Basic dXNlcjpwYXNz", "short"])
    def test_another_scheme(self, deployment, authorization):
        response = deployment.post("/api/query", {"path": "jobs:list", "args": {}}, authorization)
        assert response.status_code == 400
