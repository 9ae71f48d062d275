"""Nodes of pytest-celery as processes of this machine, so that the tests need no Docker engine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pytest_celery import CeleryWorkerContainer, RedisContainer

from devkit.servers.ports import free_port
from devkit.servers.valkey import valkey_binary
from tests.support.processes import CHECKOUT, STOP_TIMEOUT_S, Process


class LocalProcess:
    """Has the attributes of a `docker` container object that pytest-celery uses."""

    def __init__(
        self, name: str, argv: Sequence[str], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.id = uuid4().hex
        self.name = name
        # Without a network and a port, `pytest_docker_tools` considers a running container ready.
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": "127.0.0.1", "Env": []},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
        }
        self._argv = argv
        self._environ = environ
        self._folder = folder
        self._child = self._start()

    @property
    def status(self) -> str:
        """The status, in the words of Docker."""
        return "running" if self._child.is_alive() else "exited"

    def reload(self) -> None:
        """Do nothing: `status` is always current."""

    def logs(self) -> bytes:
        """Return the output of the current run."""
        return self._child.log.read_bytes()

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal; return when the process has ended."""
        self._child.send(_number(signal))
        self._child.wait()

    def restart(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Stop the process if it runs; start it again."""
        if self.status == "running":
            self.kill("SIGTERM")
        self._child = self._start()

    def _start(self) -> Process:
        return Process(self.name, self._argv, self._environ, self._folder, cwd=self._folder)


class ValkeyNode(RedisContainer):  # type: ignore[misc]
    """A Valkey with an append-only file, so that a restart keeps its data."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        options = {"bind": "127.0.0.1", "port": self._port, "appendonly": "yes", "save": ""}
        argv = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        super().__init__(LocalProcess("valkey", [str(valkey_binary()), *argv], folder, {}))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Where processes of this machine find it."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def host_url(self) -> str:
        """The same URL: there is only one machine."""
        return self.url

    def teardown(self) -> None:
        """Kill it."""
        _kill(self)


class WorkerNode(CeleryWorkerContainer):  # type: ignore[misc]
    """A callgate worker, started with its command."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        argv = [sys.executable, "-m", "callgate", "worker", "--name", self.worker_name()]
        path = {"PYTHONPATH": str(CHECKOUT)}
        super().__init__(LocalProcess("worker", argv, folder, {**environ, **path}))

    @classmethod
    def worker_name(cls) -> str:
        """The part before the @ of its name."""
        return "node"

    @classmethod
    def worker_queue(cls) -> str:
        """The queue of its calls."""
        return "callgate.call"

    def teardown(self) -> None:
        """Kill it."""
        _kill(self)


def _kill(node: RedisContainer | CeleryWorkerContainer) -> None:
    if node.status == "running":
        node.kill(signal="SIGKILL")


def _number(name: str) -> signal.Signals:
    return signal.Signals[name]
