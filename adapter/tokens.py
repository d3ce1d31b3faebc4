"""JSON Web Tokens: reading them with suspicion, and the access tokens that the adapter gives to nodes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import jwt
from fastapi import Request

from adapter.keys import Algorithm, load_service_key
from adapter.settings import ConvexSettings
from aiida_byoc.contracts.enrolment import MAX_TOKEN_SECONDS, AccessToken
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["LEEWAY_SECONDS", "AccessTokens", "Holder", "bearer", "claimed", "header", "verified"]

LEEWAY_SECONDS = 60
"""By how much clocks may differ."""

_MAX_TOKEN_CHARACTERS = 8 * 1024
_BEARER = re.compile(r"Bearer +([A-Za-z0-9_.-]+)", re.IGNORECASE)
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPE = "at+jwt"
"""RFC 9068: told apart from whatever else the service key signs."""
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


def bearer(request: Request) -> str:
    """The token of the one `Authorization: Bearer`, else `unauthenticated`."""
    headers = request.headers.getlist("authorization")
    found = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None or len(found[1]) > _MAX_TOKEN_CHARACTERS:
        raise ProblemError("unauthenticated")
    return found[1]


def claimed(token: str, name: str) -> str:
    """A claim before verification, only to choose the keys; empty when it is no string."""
    if not _JWT.fullmatch(token):
        raise ProblemError("unauthenticated")
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except _MALFORMED as error:
        raise ProblemError("unauthenticated") from error
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def header(token: str, name: str) -> object:
    """A member of the header, likewise unverified."""
    try:
        return jwt.get_unverified_header(token).get(name)
    except _MALFORMED as error:
        raise ProblemError("unauthenticated") from error


def verified(
    token: str,
    keys: Iterable[jwt.PyJWK],
    algorithms: Sequence[Algorithm],
    *,
    issuer: str,
    audience: str,
    require: Sequence[str] = (),
    is_for_us_alone: bool = False,
) -> tuple[dict[str, Any], jwt.PyJWK]:
    """The claims and the key of these that signed them, by an algorithm fixed for the issuer, for now and for us.

    Raises:
        ProblemError: `unauthenticated`, whatever is wrong.
    """
    try:
        for key in keys:
            if key.algorithm_name in algorithms:
                try:
                    claims = jwt.decode(
                        token,
                        key,
                        algorithms=[key.algorithm_name],
                        audience=audience,
                        issuer=issuer,
                        leeway=LEEWAY_SECONDS,
                        options={
                            "require": ["exp", "iat", "aud", "iss", "sub", *require],
                            "strict_aud": is_for_us_alone,
                        },
                    )
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue  # another key of the set may have signed it
                return claims, key
    except _MALFORMED as error:
        raise ProblemError("unauthenticated") from error
    raise ProblemError("unauthenticated")


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose access token it is: a node, by one of its keys (RFC 7800 `jkt`)."""

    node_id: str
    key_id: str


class AccessTokens:
    """Tokens that any replica verifies, as all hold the same service key.

    Args:
        settings: whose key, and as which issuer.
        audience: whom the tokens are for: adapters.
    """

    def __init__(self, settings: ConvexSettings, audience: str) -> None:
        self._key = load_service_key(settings.service_key_file)
        self._public = jwt.PyJWK(
            jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        )
        self._key_id, self._issuer, self._audience = (
            settings.key_id,
            settings.service_issuer,
            audience,
        )

    def issue(self, holder: Holder) -> AccessToken:
        """A new token. With the leeway it lives no longer than the contract says."""
        now, seconds = int(time.time()), MAX_TOKEN_SECONDS - LEEWAY_SECONDS
        claims = {
            "iss": self._issuer,
            "sub": holder.node_id,
            "aud": self._audience,
            "iat": now,
            "exp": now + seconds,
            "jti": str(uuid4()),
            "cnf": {"jkt": holder.key_id},
        }
        headers = {"kid": self._key_id, "typ": _TYPE}
        token = jwt.encode(claims, self._key, algorithm="ES256", headers=headers)
        return AccessToken(access_token=token, expires_in=seconds)

    def is_ours(self, token: str) -> bool:
        """Whether it claims to be one of these."""
        return claimed(token, "iss") == self._issuer

    def verify(self, token: str) -> tuple[Holder, float]:
        """Whose token it is and when it expires (seconds since the epoch), else `unauthenticated`."""
        claims, _ = verified(
            token,
            [self._public],
            ("ES256",),
            issuer=self._issuer,
            audience=self._audience,
            require=("jti", "cnf"),
            is_for_us_alone=True,
        )
        cnf = claims["cnf"]
        key_id = cnf.get("jkt") if isinstance(cnf, dict) else None
        if header(token, "typ") != _TYPE or not isinstance(key_id, str):
            raise ProblemError("unauthenticated")
        return Holder(claims["sub"], key_id), float(claims["exp"])
