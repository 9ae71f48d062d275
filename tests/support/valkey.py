"""A Valkey server for one test file, which tests may flush, kill and start again."""

from __future__ import annotations

from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as Unreachable

from devkit.servers.ports import free_port
from devkit.servers.valkey import valkey_binary
from tests.support.processes import Process
from tests.support.waiting import until

__all__ = ["Valkey", "until"]


class Valkey:
    """A server on one loopback port. Its data survives a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, decode_responses=True)
        self._folder = folder
        self._process: Process | None = None

    def start(self) -> None:
        """Start the server; return when it answers."""
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        argv = [str(valkey_binary()), "--port", str(self.port), *options]
        self._process = Process("valkey", argv, {}, self._folder, cwd=self._folder)
        until(self._answers)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        assert self._process is not None
        self._process.kill()

    def words(self, key: str) -> list[str]:
        """Return a list that tasks have written."""
        return [str(word) for word in self.client.lrange(key, 0, -1)]

    def ready(self, queue: str = "test") -> int:
        """Return the number of messages in a queue."""
        return int(self.client.llen(queue))

    def is_empty(self) -> bool:
        """Tell whether the queue is empty."""
        return self.ready() == 0

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except Unreachable:
            return False
