"""A product's backend: it signs what it asks for, and reads what its user sees."""

from __future__ import annotations

import base64
import json
import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
from jwt.algorithms import ECAlgorithm

from aiida_byoc.contracts.signature import SIGNATURE_HEADER, signing_input
from lab import process, watch
from lab.networks import Networks

ENDS = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Product:
    """Everything it does, it does from its own machine."""

    lab: dict[str, Any]
    wire: Networks
    trust: ssl.SSLContext

    def command(self, *argv: str, **changes: Any) -> dict[str, Any]:
        """A valid SubmitJobCommand with a new job id."""
        tenant = self.lab["tenants"][0]
        return {
            "schema_version": "1",
            "tenant_id": tenant["tenant_id"],
            "workspace_id": tenant["workspace_id"],
            "job_id": f"job-{uuid.uuid4().hex[:12]}",
            "management_node_id": self.lab["node"]["node_id"],
            "execution_profile": {"queue_name": self.lab["queue_name"]},
            "resource_shape": {"cpu": 1, "memory_mib": 128, "walltime_seconds": 300},
            "workload": {
                "kind": "container",
                "image": self.lab["images"][0]["ref"],
                "argv": list(argv),
            },
            "requested_by": {"user_id": tenant["user_id"]},
            **changes,
        }

    def submit(
        self, command: dict[str, Any], key: str | None = None, *, signed: bool = True
    ) -> httpx.Response:
        """Ask for a job, with the product's signature."""
        key = key or str(uuid.uuid4())
        headers = {"Idempotency-Key": f'"{key}"'}
        if signed:
            headers[SIGNATURE_HEADER] = self.sign("submit", key, command)
        return self.ask("POST", "", json=command, headers=headers)

    def cancel(self, command: dict[str, Any]) -> httpx.Response:
        """Ask for the job's end."""
        kept = ("tenant_id", "workspace_id", "job_id", "management_node_id", "requested_by")
        body = {"schema_version": "1", **{name: command[name] for name in kept}}
        headers = {SIGNATURE_HEADER: self.sign("cancel", None, body)}
        return self.ask("POST", f"/{command['job_id']}/cancel", json=body, headers=headers)

    def log(self, command: dict[str, Any]) -> str:
        """What the job's program wrote."""
        answer = self.ask("GET", f"/{command['job_id']}/logs")
        assert answer.is_success, answer.text
        return str(answer.json()["data"])

    def sign(self, operation: str, key: str | None, body: dict[str, Any]) -> str:
        """A detached JWS by the lab's signing key."""
        jwk = json.loads(Path(self.lab["product"]["signing_key_file"]).read_text())
        protected = _base64url(json.dumps({"alg": "ES256", "kid": jwk["kid"]}).encode())
        algorithm = ECAlgorithm(ECAlgorithm.SHA256)
        signature = algorithm.sign(
            signing_input(protected, operation, key, body), jwt.PyJWK(jwk).key
        )
        return f"{protected}..{_base64url(signature)}"

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request to the adapters, through nginx."""
        headers = {
            "Authorization": f"Bearer {self.lab['tenants'][0]['token']}",
            **request.pop("headers", {}),
        }
        url = f"{self.lab['adapter']['url']}/v1/nodes/{self.lab['node']['node_id']}/jobs{path}"
        with (
            self.wire.within(self.wire.product),
            httpx.Client(verify=self.trust, timeout=60, trust_env=False) as http,
        ):
            return http.request(method, url, headers=headers, **request)

    def projection(self, command: dict[str, Any]) -> dict[str, Any]:
        """What the user sees of the job."""
        with self.wire.within(self.wire.product):
            return watch.projection(self.lab, command["job_id"], 0)

    def wait(self, command: dict[str, Any], *states: str, seconds: float = 90.0) -> dict[str, Any]:
        """Poll the projection until it is in one of the states, by default a terminal one."""

        def reached() -> dict[str, Any] | None:
            seen = self.projection(command)
            return seen if seen.get("state") in (states or ENDS) else None

        logs = [Path(self.lab["node"][name]) for name in ("log", "daemon_log")]
        found = process.wait_until(reached, seconds, f"the job to be {states or ENDS}", logs=logs)
        assert found is not None
        return found


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
