"""Headless Chromium of Debian, controlled with the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.waiting import until
from worker.tied_process import tied

LISTENS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', e => window.violations.push(
    [e.effectiveDirective, e.blockedURI, e.sourceFile, e.lineNumber, e.sample].join(' ')));
window.wrong = [];
window.addEventListener('error', e => window.wrong.push(String(e.message)));
"""
"""Runs in every page before the scripts of the page."""


class Browser:
    """One page of Chromium. Every command has a timeout."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._numbers = count(1)
        self._loop.run_until_complete(self._connect())
        for command in ("Page.enable", "Network.enable", "Runtime.enable"):
            self.command(command)
        self.command("Page.addScriptToEvaluateOnNewDocument", source=LISTENS)

    def close(self) -> None:
        """Close the connection to the page."""
        self._loop.run_until_complete(self._session.close())
        self._loop.close()

    def command(self, method: str, **params: Any) -> Any:
        """Run one command of the protocol; return its result."""
        return self._loop.run_until_complete(self._command(method, params))

    def log_in(self, auth: str) -> None:
        """Send a user and password with each request."""
        word = base64.b64encode(auth.encode()).decode()
        headers = {"Authorization": f"Basic {word}"}
        self.command("Network.setExtraHTTPHeaders", headers=headers)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        assert "errorText" not in self.command("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {url!r}")

    def see(self, script: str) -> Any:
        """Evaluate JavaScript in the page, whatever its content security policy."""
        found = self.command("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        until(lambda: self.see(script), 20.0, lambda: f"not so: {script}\n{self.told()}")

    def told(self) -> dict[str, Any]:
        """Return policy violations and errors of the page, and its title."""
        names = {"violations": "violations", "wrong": "wrong", "title": "document.title"}
        return {name: self.see(script) for name, script in names.items()}

    async def _connect(self) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://{self._address}/json/list") as answer:
            pages = [p for p in await answer.json() if p["type"] == "page"]
        self._line = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=0
        )

    async def _command(self, method: str, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(20):
            while True:
                message = await self._line.receive_json()
                if message.get("id") == number:
                    return message["result"]


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Run Chromium; kill all its processes at the end."""
    program = shutil.which("chromium")
    assert program is not None, "no chromium on this machine: run `make test-system`"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(  # noqa: S603 - Debian's program
            tied(
                [
                    program,
                    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                    *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
                ]
            ),
            env={**os.environ, "HOME": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        browser = None
        try:
            browser = Browser(f"127.0.0.1:{_port(Path(folder), lambda: process.poll() is None)}")
            yield browser
        finally:
            if browser:
                browser.close()
            # Its session, with all processes that it started.
            os.killpg(process.pid, 9)
            process.wait(10)


def _port(folder: Path, is_alive: Callable[[], bool]) -> str:
    file = folder / "DevToolsActivePort"
    until(lambda: (file.exists() and file.read_text().count("\n")) or not is_alive(), 60.0)
    return file.read_text().splitlines()[0]
