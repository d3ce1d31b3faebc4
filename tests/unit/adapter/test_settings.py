"""Settings are complete, strong and believed only after they were checked; faults are sentences without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from adapter.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def content(product, node_key, service_key_file):
    return {
        "port": 8123,
        "client_issuers": [{"issuer": "https://product.example", "jwks": product.jwks}],
        "nodes": {"n1": {"jwks": node_key.jwks, "tenants": ["acme"]}},
        "convex": {
            "url": "http://127.0.0.1:1",
            "service_issuer": "https://adapter.example",
            "service_key_file": str(service_key_file),
            "key_id": "service-1",
        },
    }


@pytest.fixture
def load(tmp_path, monkeypatch):
    def load(content, name="adapter.json", **environment) -> Settings:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("BYOC_ADAPTER_CONFIG", str(path))
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        return load_settings()

    return load


def test_the_file_is_read_and_the_environment_wins(load, content):
    assert load(content).port == 8123
    assert load(content, BYOC_ADAPTER_PORT="8124").port == 8124


def test_toml_is_read_too(load, service_key_file):
    settings = load(
        f"""
        host = "0.0.0.0"
        registry = false
        [convex]
        url = "http://127.0.0.1:1"
        service_issuer = "https://adapter.example"
        service_key_file = "{service_key_file}"
        key_id = "service-1"
        """,
        name="adapter.toml",
    )

    assert settings.host == "0.0.0.0"  # noqa: S104 - only compared
    assert settings.missing() == ["client_issuers", "nodes"]


def test_the_service_key_may_be_a_private_jwk(load, content, product, service_key_file):
    service_key_file.write_text(ECAlgorithm.to_jwk(product.key))

    assert load(content).convex.service_key_file == service_key_file


FAULTS = {
    "unknown setting": (lambda c: c.update(prot=1), "prot"),
    "port out of range": (lambda c: c.update(port=70000), "port"),
    "no product": (lambda c: c.pop("convex"), "convex"),
    "no tenants": (lambda c: c["nodes"]["n1"].update(tenants=[]), "nodes.n1.tenants"),
    "empty key set": (lambda c: c["nodes"]["n1"]["jwks"].update(keys=[]), "nodes.n1.jwks.keys"),
    "algorithm": (
        lambda c: c["client_issuers"][0].update(algorithms=["HS256"]),
        "client_issuers.0.algorithms.0",
    ),
    "placeholder": (
        lambda c: c["convex"].update(service_issuer="<your issuer>"),
        "convex.service_issuer",
    ),
    "missing key file": (
        lambda c: c["convex"].update(service_key_file="/nowhere/service.pem"),
        "convex.service_key_file",
    ),
    "node named like an issuer": (
        lambda c: c["client_issuers"][0].update(issuer="n1"),
        "must not share",
    ),
    "time": (lambda c: c.update(verdict_timeout_seconds=0), "verdict_timeout_seconds"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_that_names_the_setting(fault, load, content):
    change, named = FAULTS[fault]
    change(content)

    with pytest.raises(SettingsError) as caught:
        load(content)

    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_weak_and_private_keys_are_refused(make_settings, product):
    """A shared secret, a private key, a short RSA key, a curve nobody agreed on."""
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - refused
    refused = [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"},
        json.loads(ECAlgorithm.to_jwk(product.key)),
        json.loads(RSAAlgorithm.to_jwk(small.public_key())),
        {**product.jwk, "crv": "P-384", "alg": "ES384"},
        {"kty": "EC"},
    ]
    for key in refused:
        issuer = {"issuer": "https://product.example", "jwks": {"keys": [key]}}
        with pytest.raises(ValidationError) as caught:
            make_settings(client_issuers=[issuer])
        assert "jwks" in str(caught.value)


@pytest.mark.parametrize("text", ["", "secret", '{"kty": "oct", "k": "c2VjcmV0"}', "{"])
def test_a_file_without_a_p256_key_is_refused_and_not_repeated(
    text, load, content, service_key_file
):
    service_key_file.write_text(text)

    with pytest.raises(SettingsError, match="service_key_file") as caught:
        load(content)

    assert "secret" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("name", ["adapter.json", "adapter.toml"])
def test_a_file_that_cannot_be_parsed_is_not_repeated(name, load):
    with pytest.raises(SettingsError, match="cannot be parsed") as caught:
        load("hunter2 = [", name=name)

    assert "hunter2" not in str(caught.value)


def test_the_program_says_what_is_wrong_and_stops(tmp_path):
    """One sentence and exit code 2, never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "adapter"],
        cwd=ROOT,
        env={**os.environ, "BYOC_ADAPTER_CONFIG": str(tmp_path / "absent.toml")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "absent.toml, which is not a file" in done.stderr
    assert "Traceback" not in done.stderr
