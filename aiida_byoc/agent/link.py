"""HTTP to the adapter: through which proxy, by whose certificates, and what an answer that is no success means."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from aiida_byoc import __version__
from aiida_byoc.contracts.problems import CATALOGUE, PROBLEM_BASE, ProblemError
from aiida_byoc.contracts.validation import Model, validated
from aiida_byoc.node import NodeSettings, SettingsError

__all__ = [
    "ANSWER_SECONDS",
    "AdapterUnavailable",
    "ahead_of",
    "ask",
    "link",
    "reach",
    "read",
    "timeout",
]

ANSWER_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_MOST_FIELDS = 50


class AdapterUnavailable(Exception):
    """The adapter did not do what was asked; trying again later is right.

    Attributes:
        retry_after: seconds the adapter asked us to wait, if it did.
        status: the HTTP status, if there was an answer.
        problem: name in the problem catalogue, if the answer was a problem document.
        fields: of what was sent, the fields at fault.
        date: the adapter's clock as the answer tells it (RFC 9110 §6.6.1), if it does.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        *,
        status: int | None = None,
        problem: str | None = None,
        fields: tuple[str, ...] = (),
        date: str | None = None,
    ) -> None:
        self.retry_after, self.status, self.problem = retry_after, status, problem
        self.fields, self.date = fields, date
        super().__init__(message)


def link(settings: NodeSettings) -> httpx.Client:
    """A client whose paths begin at the adapter's `/v1`.

    Raises:
        SettingsError: `ca_file` cannot be used.
    """
    base = str(settings.adapter_url).rstrip("/")
    return httpx.Client(
        base_url=f"{base}/v1",
        timeout=timeout(),
        headers={"User-Agent": f"aiida-byoc-agent/{__version__}"},
        verify=_authorities(settings),
        proxy=str(settings.proxy) if settings.proxy else None,
    )


def timeout(wait_seconds: float = 0) -> httpx.Timeout:
    """For a request that is answered after so long, or soon after."""
    return httpx.Timeout(wait_seconds + ANSWER_SECONDS, connect=_CONNECT_SECONDS)


def _authorities(settings: NodeSettings) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"ca_file {settings.ca_file} cannot be used: {error.strerror or error};"
                " it holds certificates in PEM form"
            ) from error
    return context


def reach(settings: NodeSettings) -> float | None:
    """Raise `AdapterUnavailable` unless the adapter answers that it lives.

    Returns:
        How far this machine's clock is ahead of the adapter's in seconds, as far as its `Date` tells (RFC 9110 §6.6.1).
    """
    with link(settings) as http:
        base = str(settings.adapter_url).rstrip("/")
        return ahead_of(ask(http, f"{base}/livez", method="GET").headers.get("Date"))


def ahead_of(date: str | None) -> float | None:
    """How far this machine's clock is ahead of the one in a `Date` header, in seconds."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):
        return None


def ask(http: httpx.Client, path: str, *, method: str = "POST", **request: Any) -> httpx.Response:
    """Send a request; return a success.

    Raises:
        AdapterUnavailable: there was none.
    """
    try:
        response = http.request(method, path, **request)
    except httpx.HTTPError as error:
        helps = ""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            helps = "; if its authority is one of your own, name that as ca_file"
        raise AdapterUnavailable(f"{type(error).__name__}: {error}{helps}") from error
    if response.is_success:
        return response
    raise _refusal(response)


def read(model: type[Model], response: httpx.Response) -> Model:
    """Read a success; one without sense (a proxy's page, perhaps) did not come from the adapter."""
    try:
        return validated(model, response.json(), what="answer")
    except (ValueError, ProblemError) as error:
        raise AdapterUnavailable(f"HTTP {response.status_code}: {error}") from error


def _refusal(response: httpx.Response) -> AdapterUnavailable:
    after = response.headers.get("Retry-After", "")
    detail, problem = "no problem document", None
    fields: tuple[str, ...] = ()
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        document = response.json()
        detail = document["detail"]
        problem = document["type"].removeprefix(PROBLEM_BASE)
        fields = tuple(str(each["field"]) for each in document["errors"][:_MOST_FIELDS])
    return AdapterUnavailable(
        f"HTTP {response.status_code}: {detail}",
        float(after) if after.isdigit() else None,
        status=response.status_code,
        problem=problem if problem in CATALOGUE else None,
        fields=fields,
        date=response.headers.get("Date"),
    )
