"""Nodes of pytest-celery that are processes of this machine: nobody who runs the tests needs a Docker engine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pytest_celery import CeleryWorkerContainer, RedisContainer

from devkit.servers.ports import free_port
from devkit.servers.valkey import valkey_binary
from tests.support.deployment import CHECKOUT, clean_environ

STOP_TIMEOUT_S = 40


class LocalProcess:
    """Has what pytest-celery uses of a `docker` container object."""

    def __init__(
        self, name: str, argv: Sequence[str], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.id = uuid4().hex
        self.name = name
        # No network and no port: then `pytest_docker_tools` takes a running container for a ready one.
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": "127.0.0.1", "Env": []},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
        }
        self._argv = argv
        self._environ = clean_environ(environ)
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._child = self._start()

    @property
    def status(self) -> str:
        """As Docker words it."""
        return "running" if self._child.poll() is None else "exited"

    def reload(self) -> None:
        """Do nothing: the status is always of now."""

    def logs(self) -> bytes:
        """What the current run has printed."""
        return self._log.read_bytes()

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal; return when the process has ended of it."""
        self._child.send_signal(_number(signal))
        self._child.wait(STOP_TIMEOUT_S)

    def restart(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Stop the process if it runs, and start it again."""
        if self.status == "running":
            self._child.terminate()
            self._child.wait(timeout)
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the argument list is ours
                self._argv,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


class ValkeyNode(RedisContainer):  # type: ignore[misc]
    """A Valkey with an append-only file: a restart keeps what it holds."""

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
        """The same: there is no other machine."""
        return self.url

    def teardown(self) -> None:
        """Kill it."""
        _kill(self)


class WorkerNode(CeleryWorkerContainer):  # type: ignore[misc]
    """A callgate worker, started as its users start it."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        argv = [sys.executable, "-m", "callgate", "worker", "--name", self.worker_name()]
        path = {"PYTHONPATH": str(CHECKOUT)}
        super().__init__(LocalProcess("worker", argv, folder, {**environ, **path}))

    @classmethod
    def worker_name(cls) -> str:
        """Before the @ of its name."""
        return "node"

    @classmethod
    def worker_queue(cls) -> str:
        """Where its calls come from."""
        return "callgate.call"

    def teardown(self) -> None:
        """Kill it."""
        _kill(self)


def _kill(node: RedisContainer | CeleryWorkerContainer) -> None:
    if node.status == "running":
        node.kill(signal="SIGKILL")


def _number(name: str) -> signal.Signals:
    return signal.Signals[name]
