"""What the product's TypeScript signs is what the contracts' Python verifies, whatever JSON the command holds."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import Any

from jwt.algorithms import ECAlgorithm

from aiida_byoc.contracts.signature import signing_input
from lab.convex import ROOT, TSX
from lab.credentials import make_signing_jwk

SCRIPT = ROOT / "tests" / "convex" / "sign.ts"
MESSAGES = ROOT / "docs" / "contracts" / "examples"
STRANGE: list[dict[str, Any]] = [
    {},
    {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
    {"text": '\u0000\u0008\u000b\u001f\u007f"\\/\u2028\u2029\ufeff\u00e9', "": {"": []}},
    {"10": 1, "9": 2, "__proto__": {"a": 1}, "constructor": None, "a": [True, False]},
    {
        "numbers": [
            0.1,
            -0.0,
            1e-7,
            1e-6,
            5e-324,
            1.7976931348623157e308,
            1e21,
            2**53 - 1,
            1.5e16 / 7,
        ]
    },
]


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def signed(key: dict[str, str], intents: list[dict[str, Any]]) -> list[str]:
    """Have TypeScript sign the intents."""
    done = subprocess.run(
        ["node", "--import", TSX.as_uri(), str(SCRIPT)],
        input="".join(json.dumps(intent) + "\n" for intent in intents),
        env={**os.environ, "BYOC_SIGNING_KEY": json.dumps(key), "TSX_DISABLE_CACHE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_command_that_typescript_signs_verifies():
    commands = [json.loads(file.read_text()) for file in sorted(MESSAGES.glob("*-command.*.json"))]
    intents = [
        {"operation": "submit", "idempotency_key": key, "body": body}
        for body in commands + STRANGE
        for key in ("a-key-of-some-length", None)
    ]
    key = make_signing_jwk()
    es256 = ECAlgorithm(ECAlgorithm.SHA256)
    public = es256.from_jwk({name: value for name, value in key.items() if name != "d"})

    signatures = signed(key, intents)

    assert len(signatures) == len(intents) > 10
    for intent, text in zip(intents, signatures, strict=True):
        protected, signature = text.split("..")
        assert json.loads(decoded(protected)) == {"alg": "ES256", "kid": key["kid"]}
        read = json.loads(json.dumps(intent))
        assert es256.verify(signing_input(protected, **read), public, decoded(signature)), intent
