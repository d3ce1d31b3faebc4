"""Settings are complete, strong and believed only after they were checked; faults are sentences without secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from adapter.settings import ClientIssuer, Settings, SettingsError, load_settings

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


def _keys_at(content, **settings) -> None:
    del content["client_issuers"][0]["jwks"]
    content["client_issuers"][0].update(settings)


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
    "no source of keys": (lambda c: c["client_issuers"][0].pop("jwks"), "client_issuers.0"),
    "two sources of keys": (
        lambda c: c["client_issuers"][0].update(discovery=True),
        "give one of jwks, jwks_url and discovery",
    ),
    "keys without TLS": (
        lambda c: _keys_at(c, jwks_url="http://product.example/jwks.json"),
        "jwks_url must be https",
    ),
    "keys with a password": (
        lambda c: _keys_at(c, jwks_url="https://user:hunter2@product.example/jwks.json"),
        "jwks_url must be https",
    ),
    "discovery without TLS": (
        lambda c: _keys_at(c, discovery=True, issuer="http://product.example"),
        "issuer must be an https URL",
    ),
    "discovery of a name": (
        lambda c: _keys_at(c, discovery=True, issuer="product"),
        "issuer must be an https URL",
    ),
    "the service as an issuer": (
        lambda c: c["client_issuers"][0].update(issuer="https://adapter.example"),
        "convex.service_issuer must not be",
    ),
    "the product's audience": (lambda c: c.update(audience="convex"), "audience must differ"),
    "believed for too long": (lambda c: c.update(registry_seconds=61), "registry_seconds"),
    **{
        f"origin {origin}": (
            lambda c, origin=origin: c.update(cors_origins=[origin]),
            "cors_origins",
        )
        for origin in (
            "*",
            "null",
            "https://*.example",
            "product.example",
            "http://product.example",
            "https://product.example/",
            "https://product.example/page",
            "https://product.example?",
            "https://Product.example",
            "https://product.example:443",
            "https://product.example:port",
            "https://user:hunter2@product.example",
        )
    },
    "time": (lambda c: c.update(verdict_timeout_seconds=0), "verdict_timeout_seconds"),
}


@pytest.mark.parametrize(
    "origin", ["https://product.example", "https://a.example:8443", "http://[::1]:5173"]
)
def test_origins_of_pages_are_taken_to_the_letter(origin, load, content):
    content["cors_origins"] = [origin]

    assert load(content).cors_origins == [origin]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_that_names_the_setting(fault, load, content):
    change, named = FAULTS[fault]
    change(content)

    with pytest.raises(SettingsError) as caught:
        load(content)

    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_settings_of_the_manual_are_settings(service_key_file, product):
    """Each block of the page, with real keys where it has dots."""
    page = (ROOT / "docs" / "install" / "adapter.md").read_text()
    blocks = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]

    whole, *issuers = blocks
    whole["convex"]["service_key_file"] = str(service_key_file)
    for holder in (*whole["client_issuers"], *whole["nodes"].values()):
        holder["jwks"] = product.jwks
    settings = Settings(**whole)
    more = [
        ClientIssuer(**one | ({"jwks": product.jwks} if "jwks" in one else {}))
        for block in issuers
        for one in block["client_issuers"]
    ]

    assert settings.registry_seconds == Settings.model_fields["registry_seconds"].default
    assert [issuer.discovery for issuer in more] == [True, True, False]
    described = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) | {"jwks_url", "discovery"}
    assert described | {"jwks"} == set(ClientIssuer.model_fields)


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


def test_a_file_that_cannot_be_read_is_one_sentence(monkeypatch):
    monkeypatch.setenv("BYOC_ADAPTER_CONFIG", "/proc/self/mem")  # a file, even to root: no page 0

    with pytest.raises(SettingsError, match="/proc/self/mem, which cannot be read: Input"):
        load_settings()


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
