"""GET requests to one registry: encrypted, with the token it wants, and every failure a sentence."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

import httpx

from aiida_byoc import __version__
from aiida_byoc.contracts.events import one_line
from aiida_byoc.registry.credentials import Login
from aiida_byoc.runtimes.oci import ImageError, SourceUnavailable
from aiida_byoc.runtimes.reference import Reference

__all__ = ["RegistryClient"]

_HOSTS = {"docker.io": "registry-1.docker.io"}
_REDIRECTS = 5
_MOST_TOLD = 1 << 16
"""In bytes; tokens with many claims have a few thousand."""
_LATER = {408, 425, 429, 500, 502, 503, 504}


class RegistryClient:
    """One registry, asked for one repository."""

    def __init__(self, reference: Reference, login: Login | None) -> None:
        self._reference, self._login = reference, login
        self._authorization: str | None = None
        self._http = httpx.Client(
            # The machine's own authorities (and SSL_CERT_FILE): registries of a campus are signed by those.
            verify=ssl.create_default_context(),
            trust_env=not reference.is_loopback,  # no proxy leads to this machine
            timeout=httpx.Timeout(30.0, connect=10.0),
            follow_redirects=True,  # to the host that has the blobs; it never sees our token
            max_redirects=_REDIRECTS,
            headers={
                "User-Agent": f"aiida-byoc/{__version__}",
                "Accept-Encoding": "identity",  # digests are over what is stored
            },
            event_hooks={"request": [self._check_encryption]},
        )
        self._plain = reference.is_loopback and self._speaks_plainly()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextlib.contextmanager
    def get(self, path: str, **headers: str) -> Iterator[httpx.Response]:
        """Ask for `path` below the repository; the answer's body is not read yet.

        Raises:
            ImageError: the registry does not have it, or does not give it to us.
            SourceUnavailable: no answer, or one that says to try again.
        """
        url = f"{self._base}/v2/{self._reference.repository}/{path}"
        for is_last in (False, True):
            known = {"Authorization": self._authorization} if self._authorization else {}
            with (
                self._talking(),
                self._http.stream("GET", url, headers={**known, **headers}) as answer,
            ):
                if answer.status_code == 401 and not is_last:
                    self._authorization = self._authorize(answer)
                    continue
                if not answer.is_success:
                    raise _refusal(answer, self._reference)
                yield answer
                return

    @property
    def _base(self) -> str:
        host = _HOSTS.get(self._reference.host, self._reference.host)
        return f"{'http' if self._plain else 'https'}://{host}"

    def _speaks_plainly(self) -> bool:
        """Whether a registry on this machine does without TLS, as it may; a question that tells nothing finds out."""
        url = f"http://{self._reference.host}/v2/"
        try:
            with self._http.stream("GET", url, follow_redirects=False) as answer:
                return answer.status_code != httpx.codes.BAD_REQUEST or b"HTTPS" not in _body(
                    answer
                )
        except httpx.HTTPError:
            return False

    def _check_encryption(self, request: httpx.Request) -> None:
        """Also of redirects, and of where the tokens are."""
        host = request.url.netloc.decode()
        if request.url.scheme == "http" and not Reference(host=host, repository="").is_loopback:
            raise ImageError(f"{self._reference.host} leads to {host} without encryption (http)")

    def _authorize(self, answer: httpx.Response) -> str:
        """What the registry wants to see, by its challenge (RFC 9110, 11.6.1; Docker's token specification)."""
        for challenge in answer.headers.get_list("WWW-Authenticate"):
            scheme, _, words = challenge.partition(" ")
            if scheme.lower() == "bearer":
                asked = parse_keqv_list(parse_http_list(words))
                return f"Bearer {self._token(asked)}"
            if scheme.lower() == "basic" and self._login is not None:
                pair = f"{self._login.user}:{self._login.password}".encode()
                return f"Basic {base64.b64encode(pair).decode()}"
        raise _refusal(answer, self._reference)

    def _token(self, asked: dict[str, str]) -> str:
        scope = asked.get("scope") or f"repository:{self._reference.repository}:pull"
        wanted = {"service": asked.get("service", ""), "scope": scope}
        realm, login = asked.get("realm", ""), self._login
        request: dict[str, Any]
        if login is not None and login.token is not None:
            form = {"grant_type": "refresh_token", "client_id": "aiida-byoc"}
            request = {"method": "POST", "data": {**form, "refresh_token": login.token, **wanted}}
        else:
            known = None if login is None else (login.user, login.password)
            request = {"method": "GET", "params": wanted, "auth": known}
        try:
            with self._http.stream(url=realm, **request) as answer:
                if not answer.is_success:
                    raise _refusal(answer, self._reference)
                body = _body(answer)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ImageError(f"{self._reference.host} names no place that gives tokens") from error
        with contextlib.suppress(ValueError, AttributeError):
            document = json.loads(body)
            token = document.get("token") or document.get("access_token")
            if isinstance(token, str) and token.isascii() and token.isprintable():
                return token
        raise ImageError(f"what gives tokens for {self._reference.host} gave none")

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except httpx.TooManyRedirects as error:
            raise ImageError(f"{self._reference.host} redirects for ever") from error
        except httpx.HTTPError as error:
            said = one_line(str(error)) or type(error).__name__
            raise SourceUnavailable(
                f"the registry {self._reference.host} does not answer: {said}"
            ) from error


def _refusal(answer: httpx.Response, reference: Reference) -> ImageError:
    """An answer that is none, in a sentence."""
    status, told = answer.status_code, _told(answer)
    if status in _LATER:
        after = answer.headers.get("Retry-After", "")
        return SourceUnavailable(
            f"the registry {reference.host} has no time for us (HTTP {status}{told})",
            float(after) if after.isdigit() else None,
        )
    if status in {401, 403}:
        return ImageError(
            f"the registry {reference.host} does not let this node read {reference.repository}"
            f" (HTTP {status}{told}); the node's owner must log in there"
        )
    if status == 404:
        return ImageError(f"the registry {reference.host} does not have it (HTTP 404{told})")
    return ImageError(f"the registry {reference.host} answers HTTP {status}{told}")


def _told(answer: httpx.Response) -> str:
    """The registry's own words (distribution-spec, "Error Codes"), if it has any."""
    with contextlib.suppress(httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
        first: dict[str, Any] = json.loads(_body(answer))["errors"][0]
        return one_line(f", {first['code']}: {first.get('message', '')}")[:200]
    return ""


def _body(answer: httpx.Response) -> bytes:
    """A short body, or the beginning of a long one."""
    body = b""
    for block in answer.iter_bytes():
        body += block
        if len(body) > _MOST_TOLD:
            break
    return body
