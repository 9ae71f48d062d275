"""callgate's pages in headless Chromium of Debian, by Playwright: opened, looked at, and checked for accessibility."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.flower import FlowerUnderTest

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
WIDTHS = {"light": 1_280, "dark": 400}
"""A desk in the light theme, a phone in the dark one."""
BAD = ("serious", "critical")
LISTENS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', e => window.violations.push(
    [e.effectiveDirective, e.blockedURI, e.sourceFile, e.lineNumber].join(' ')));
"""


@dataclass
class OpenPage:
    """A page of a user, with what its console said."""

    page: Page
    flower: FlowerUnderTest
    said: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to a path, and wait until it is loaded."""
        answer = self.page.goto(f"http://127.0.0.1:{self.flower.port}{path}")
        assert answer is not None
        assert answer.status < 500, (
            f"{path}: {answer.status}\n{self.flower.process.output()[-3_000:]}"
        )

    def check(self, name: str = "", folder: Path | None = None) -> None:
        """
        Check what is shown: nothing wrong in the console, nothing serious for axe, nothing wider than the window.

        Args:
            folder: Where to keep a picture of it, under `name`.
        """
        if folder is not None:
            self.page.screenshot(path=folder / f"{name}.png", full_page=True)
        assert self.said == [], self.said
        violations = self.page.evaluate("window.violations")
        assert violations == [], violations
        wrong = self.wrong_for_axe()
        assert wrong == [], wrong
        width = self.page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= self.page.evaluate("window.innerWidth"), (self.page.url, width)

    def wrong_for_axe(self) -> list[Any]:
        """What axe-core calls serious or critical, each with the elements."""
        # Through the protocol: a script element of ours would violate the policy of the page.
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            (v["id"], [node["html"][:200] for node in v["nodes"]][:5])
            for v in found["violations"]
            if v["impact"] in BAD
        ]


@contextmanager
def a_chromium() -> Iterator[Browser]:
    """Run Debian's Chromium until the block ends."""
    program = shutil.which("chromium")
    assert program is not None, "no chromium on this machine: run `make test-system`"
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            env={"HOME": home},
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def a_page(
    browser: Browser,
    flower: FlowerUnderTest,
    auth: str,
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[OpenPage]:
    """A page of a user, as wide as `WIDTHS` says."""
    user, _, password = auth.partition(":")
    context = browser.new_context(
        viewport={"width": WIDTHS[scheme], "height": 900},
        color_scheme=scheme,
        http_credentials={"username": user, "password": password},
        reduced_motion="reduce",
    )
    try:
        context.add_init_script(LISTENS)
        page = context.new_page()
        page.set_default_timeout(20_000)
        opened = OpenPage(page, flower)
        page.on("pageerror", lambda error: opened.said.append(str(error)))
        page.on(
            "console",
            lambda told: (
                opened.said.append(f"{told.text} {told.location}") if told.type == "error" else None
            ),
        )
        yield opened
    finally:
        context.close()
