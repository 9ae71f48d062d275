"""Ask a process how it is."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from devkit.servers.ports import free_port
from tests.support.deployment import Deployment, Process, until

PATIENCE_S = 40.0


class Asked:
    """A process, and the port on which it says how it is."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask once."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def faults(self) -> set[str]:
        """What keeps it from working: the checks that fail."""
        try:
            status, body = self.ask("/ready")
        except OSError:
            return {"no answer"}
        names = {fault["check"] for fault in body["faults"]}
        assert (status == 200) == body["is_ready"] == (not names)
        return names

    def reason(self, check: str) -> str:
        """Why a check fails."""
        _, body = self.ask("/ready")
        return next(str(f["reason"]) for f in body["faults"] if f["check"] == check)

    def until_ready(self) -> None:
        """Wait until it can work."""
        until(lambda: self.faults() == set(), PATIENCE_S, self._seen)

    def until_it_lacks(self, *checks: str) -> None:
        """Wait until all these checks fail."""
        until(lambda: self.faults() >= set(checks), PATIENCE_S, self._seen)

    def _seen(self) -> str:
        return f"{self.faults()}\n{self.process.output()}"


def an_asked_worker(deployment: Deployment, argv: list[str], **changes: str) -> Asked:
    """Start a worker with a port for its health."""
    port = free_port()
    process = deployment.start("worker", argv, CALLGATE_WORKER__STATUS_PORT=str(port), **changes)
    return Asked(process, port)
