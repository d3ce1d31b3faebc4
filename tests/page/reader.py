"""Somebody at the page: signs in, reads, clicks, types."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from lab import convex

__all__ = ["AXE", "JOB_MILLISECONDS", "Desk", "Reader", "chromium"]

ROOT = Path(__file__).parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = ROOT / "docs" / "images"
JOB_MILLISECONDS = 90_000
"""How long a job of these tests may take until its end is on the page."""

WAIT_MILLISECONDS = 15_000

# Refusals that a test provokes; the browser tells of every answer from 400 on.
_EXPECTED = ("Failed to load resource: the server responded with a status of 40",)


def chromium() -> str:
    """Debian's browser: Playwright's own are no Debian packages."""
    found = shutil.which("chromium")
    assert found is not None, "Chromium is not installed: run `make bootstrap`"
    return found


@dataclass
class Desk:
    """Makes readers, each with a browser profile of its own."""

    browser: Browser
    lab: dict[str, Any]
    complaints: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def reader(self, tenant: int = 0, *, sign_in: bool = True, **options: Any) -> Reader:
        """A user of the tenant; `options` are those of a browser context."""
        context = self.browser.new_context(
            **{
                "viewport": {"width": 1360, "height": 840},
                "locale": "en-GB",
                "reduced_motion": "reduce",
                "color_scheme": "light",
                "accept_downloads": True,
                **options,
            }
        )
        context.set_default_timeout(WAIT_MILLISECONDS)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        reader = Reader(self.lab, self.lab["tenants"][tenant], page)
        page.goto(self.lab["page"]["url"])
        if sign_in:
            reader.sign_in()
        return reader

    def close(self) -> None:
        """Close every browser profile."""
        for context in self.contexts:
            context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            self.complaints.append(message.text)


@dataclass
class Reader:
    """One user at one page."""

    lab: dict[str, Any]
    tenant: dict[str, Any]
    page: Page

    def sign_in(self) -> None:
        """As the lab offers it."""
        self.page.get_by_role("button", name=self.tenant["user_id"]).click()
        expect(self.page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()

    def go(self, *path: str, query: str = "") -> None:
        """To a place of the tenant's."""
        where = "/".join((self.tenant["tenant_id"], *path))
        self.page.evaluate("where => { location.hash = where }", f"#/{where}{query}")

    def call(self, kind: str, function: str, **arguments: Any) -> Any:
        """Ask the product as this user, past the page."""
        return convex.call(
            _product(self.lab),
            kind,
            function,
            {"tenant_id": self.tenant["tenant_id"], **arguments},
            authorization=f"Bearer {self.tenant['token']}",
        )

    def submit(
        self,
        *argv: str,
        name: str = "job",
        node_id: str | None = None,
        rows: list[list[str]] | None = None,
    ) -> str:
        """Submit a job past the page; returns its id. With `rows` an array, whose `{value}` they give."""
        command = {
            "execution_profile": {"queue_name": self.lab["queue_name"]},
            "resource_shape": {"cpu": 1, "memory_mib": 128, "walltime_seconds": 300},
            "workload": {
                "kind": "container" if rows is None else "array",
                **(
                    {}
                    if rows is None
                    else {"tasks": {"columns": ["value"], "rows": rows}, "pack": 8}
                ),
                "image": self.lab["images"][0]["ref"],
                "argv": list(argv),
            },
        }
        made = self.call(
            "mutation",
            "commands:submitJob",
            workspace_id=self.tenant["workspace_id"],
            node_id=node_id or self.lab["node"]["node_id"],
            job_id=f"{name}-{uuid.uuid4().hex[:8]}",
            command=json.dumps(command),
        )
        return str(made["job_id"])

    def declare_node(self, node_id: str) -> None:
        """Make a node known to the product that serves the tenant, and is nowhere."""
        node = {"node_id": node_id, "tenant_ids": [self.tenant["tenant_id"]]}
        convex.call(_product(self.lab), "mutation", "tenancy:seed", {"nodes": [node]})

    def focused(self) -> str:
        """What a screen reader calls the control that has the focus."""
        return str(
            self.page.evaluate("""() => {
                const now = document.activeElement;
                return (now.getAttribute("aria-label") ?? now.labels?.[0]?.innerText ?? now.innerText ?? "").trim();
            }""")
        )

    def state(self) -> Locator:
        """The state in the head of a job's page."""
        return self.page.locator(".job-title .state")

    def awaits(self, state: str) -> None:
        """Watch a job's page until it is in that state."""
        expect(self.state()).to_have_text(state, timeout=JOB_MILLISECONDS)

    def panel(self, title: str) -> Locator:
        """A part of the page, by its title."""
        return self.page.get_by_role("region", name=title, exact=True)

    def picture(self, name: str) -> None:
        """Keep what is seen, with `BYOC_SCREENSHOTS=1`, for the documents."""
        if os.environ.get("BYOC_SCREENSHOTS") == "1":
            PICTURES.mkdir(exist_ok=True)
            self.page.screenshot(path=PICTURES / f"page-{name}.png")


def _product(lab: dict[str, Any]) -> convex.Convex:
    where = lab["convex"]
    return convex.Convex(url=where["url"], site_url=where["site_url"], admin_key=where["admin_key"])
