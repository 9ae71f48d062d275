"""
`callgate up`: everything a developer needs, in one terminal.

    up ─┬─ Postgres, Valkey     (devkit.servers, in the data folder)
        ├─ callgate worker      restarted when it ends
        └─ callgate flower      restarted when it ends

Each line of a child begins with its command. Other terminals read the URLs of the servers from the file `env` in the
data folder. The file exists while this process runs. The kernel kills every child when this process ends, also when it
is killed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from callgate.adapters.catalogue_file import load_catalogue
from callgate.cli.output import print_json, print_note
from callgate.domain.errors import ConfigurationError
from callgate.settings import load_settings
from config.settings import WorkerOptions, WorkerSettings, check_relations
from devkit.servers.embedded import DevServers, DevServersError
from worker.migrate import migrate
from worker.tied_process import tied

POLL_S = 0.1
RESTART_PAUSE_S = 2.0
WRONG_SETTINGS = 2
"""The exit code of a command that refuses its settings: a restart would not help."""
STOP_SLACK_S = 15.0
FLOWER_STOP_S = 5.0
LAST_LINES_S = 1.0
"""How long the last lines of a child that has ended may take."""
NO_ADVICE_FOR_ROOT = "ignore:You're running the worker with superuser privileges"
"""Development in a container is often done as root; nine lines of Celery about it hide what is said here."""


def run_up(*, as_json: bool) -> int:
    """
    Run until SIGINT or SIGTERM. A second signal stops at once, without waiting for calls in flight.

    Returns:
        The exit code: 0 after a signal, 2 if a child refused its settings.

    Raises:
        ConfigurationError: The settings cannot work, or another `callgate up` runs in the folder.
    """
    settings = load_settings(WorkerSettings, database_url="postgresql://", broker_url="redis://")
    check_relations(settings, load_catalogue(settings.catalogue))
    options = settings.worker
    signals = _Signals()
    try:
        with signals.caught(), DevServers(options.data_dir) as servers:
            if signals.count:
                return 0
            migrate(servers.database_url)
            shared = {
                "CALLGATE_DATABASE_URL": servers.database_url,
                "CALLGATE_BROKER_URL": servers.broker_url,
                **_catalogue(settings),
            }
            with _env_file(options.data_dir, shared):
                return _run_children(options, shared, signals, as_json)
    except DevServersError as exc:
        raise ConfigurationError(str(exc)) from exc


class _Signals:
    """Counts requests to stop."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of ending."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._count) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


class _Child:
    """One `callgate` command as a child process that is restarted when it ends."""

    def __init__(self, command: str, shared: Mapping[str, str], stop_s: float) -> None:
        self.command = command
        self.stop_s = stop_s
        warnings = filter(None, (os.environ.get("PYTHONWARNINGS"), NO_ADVICE_FOR_ROOT))
        self._environ = {
            **os.environ,
            **shared,
            "PYTHONWARNINGS": ",".join(warnings),
            "PYTHONUNBUFFERED": "1",  # a line appears when it is written
        }
        self._restart_at: float | None = None
        self._process = self._start()

    def watch(self) -> int | None:
        """Restart the command `RESTART_PAUSE_S` after it ended; return its exit code if it refused its settings."""
        code = self._process.poll()
        if code in (None, WRONG_SETTINGS):
            return code
        now = time.monotonic()
        if self._restart_at is None:
            print_note(
                f"{self.command} ended with status {code}; restarting in {RESTART_PAUSE_S:g} s"
            )
            self._restart_at = now + RESTART_PAUSE_S
        elif now >= self._restart_at:
            self._restart_at = None
            self._process = self._start()
        return None

    def stop(self, signals: _Signals) -> None:
        """Ask the command to stop; kill it after `stop_s` seconds, or at the next signal."""
        signals_before, give_up_at = signals.count, time.monotonic() + self.stop_s
        if self._process.poll() is None:
            self._process.terminate()
        while self._process.poll() is None:
            if signals.count > max(signals_before, 1) or time.monotonic() > give_up_at:
                self._process.kill()
            time.sleep(POLL_S)
        self._lines.join(LAST_LINES_S)

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the command in a session of its own, which the terminal's Ctrl-C does not reach."""
        program = [sys.executable, "-m", "callgate", self.command]
        process = subprocess.Popen(  # noqa: S603 - the argument list is ours
            tied(program),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None, "it was started with a pipe"
        self._lines = threading.Thread(
            target=_show_lines, args=(self.command, process.stdout), daemon=True
        )
        self._lines.start()
        return process


def _show_lines(name: str, output: IO[bytes]) -> None:
    """Write each line of a child to stderr, after its name: this process's banner alone is on stdout."""
    with output:
        for line in output:
            # A terminal that is gone must not keep the child waiting.
            with suppress(OSError, ValueError):
                sys.stderr.buffer.write(f"{name} | ".encode() + line.rstrip(b"\n") + b"\n")
                sys.stderr.buffer.flush()


def _run_children(
    options: WorkerOptions, shared: Mapping[str, str], signals: _Signals, as_json: bool
) -> int:
    children: list[_Child] = []
    try:
        children.append(_Child("worker", shared, options.shutdown_timeout_s + STOP_SLACK_S))
        children.append(_Child("flower", shared, FLOWER_STOP_S))
        _print_banner(options, shared, as_json)
        while not signals.count:
            if refused := [code for child in children if (code := child.watch()) is not None]:
                return refused[0]
            time.sleep(POLL_S)
        print_note(
            "stopping when the calls in flight have finished; press Ctrl-C again to stop at once"
        )
        return 0
    finally:
        for child in children:
            child.stop(signals)


@contextmanager
def _env_file(folder: Path, shared: Mapping[str, str]) -> Iterator[None]:
    """Write the shared variables, passwords included, to a file that only this account can read."""
    path, new = folder / "env", folder / "env.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_exports(shared))
    new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _catalogue(settings: WorkerSettings) -> dict[str, str]:
    """Return the path of the catalogue for clients, which may run in another folder."""
    catalogue = settings.catalogue
    return {"CALLGATE_CATALOGUE": str(catalogue.absolute())} if catalogue else {}


def _exports(shared: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(url)}\n" for name, url in shared.items())


def _print_banner(options: WorkerOptions, shared: Mapping[str, str], as_json: bool) -> None:
    dashboard = f"http://{options.flower_address}:{options.flower_port}"
    if options.flower_url_prefix:
        dashboard += f"/{options.flower_url_prefix}/"
    if as_json:
        print_json({**shared, "flower_url": dashboard, "data_dir": options.data_dir.absolute()})
    else:
        print(  # noqa: T201 - the banner
            f"\ncallgate is up. Dashboard: {dashboard}\n"
            "In another terminal, for the URLs of the servers and the catalogue:\n\n"
            f"    . {shlex.quote(str(options.data_dir / 'env'))}\n\n"
            "Ctrl-C stops everything."
        )
    sys.stdout.flush()
