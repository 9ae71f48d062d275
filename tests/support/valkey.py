"""A Valkey server of a test's own, which the test may flush, kill and start again."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as Unreachable

from devkit.servers.valkey import valkey_binary


def until(fact: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait until `fact` is true, or fail."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)


class Valkey:
    """A server on one loopback port; what it holds outlives its process."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, decode_responses=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(  # noqa: S603 - the binary of our own wheel
            [str(valkey_binary()), "--port", str(self.port), *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        until(self._answers)

    def kill(self) -> None:
        """End the server with kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def words(self, key: str) -> list[str]:
        """Return a list that tasks have written."""
        return [str(word) for word in self.client.lrange(key, 0, -1)]

    def ready(self, queue: str = "test") -> int:
        """Count the messages that wait in a queue."""
        return int(self.client.llen(queue))

    def is_empty(self) -> bool:
        """Ask whether no message waits."""
        return self.ready() == 0

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except Unreachable:
            return False
