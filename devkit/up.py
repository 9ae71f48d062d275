"""
`callgate up`: everything a developer needs, in one terminal.

    up ─┬─ Postgres, Valkey     (devkit.servers.embedded, in the data folder)
        ├─ callgate worker      restarted when it dies
        └─ callgate flower      restarted when it dies

Other terminals find the services by the file `env` in the data folder, which exists while this runs. Every child dies
with this process, however that ends.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from callgate.adapters.catalogue_file import load_catalogue
from callgate.cli.output import print_json, print_note
from callgate.domain.errors import ConfigurationError
from callgate.settings import load_settings
from config.settings import WorkerOptions, WorkerSettings, check_relations
from devkit.servers.embedded import DevServers, DevServersError
from worker import tied_process as embedded_child
from worker.migrate import migrate

POLL_S = 0.1
BACK_OFF_S = 1.0
BACK_OFF_MAX_S = 30.0
HEALTHY_S = 60.0
"""A child that lived so long starts again with the shortest back-off."""
WRONG_SETTINGS = 2
"""The exit code of a command that cannot work as it is configured: starting it again would not help."""
STOP_SLACK_S = 15.0
FLOWER_STOP_S = 5.0


def run_up(*, as_json: bool) -> int:
    """
    Run until SIGINT or SIGTERM; a second one stops at once, without a drain.

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
        with signals.caught(), DevServers(options.data_dir) as services:
            if signals.count:
                return 0
            migrate(services.database_url)
            shared = {
                "CALLGATE_DATABASE_URL": services.database_url,
                "CALLGATE_BROKER_URL": services.broker_url,
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
    """One `callgate` command as a process that is started again when it dies."""

    def __init__(self, command: str, shared: Mapping[str, str], stop_s: float) -> None:
        self.command = command
        self.stop_s = stop_s
        self._environ = {**os.environ, **shared}
        self._back_off_s = BACK_OFF_S
        self._start()

    def watch(self) -> int | None:
        """Start it again if it died, after a pause that grows; its exit code if it refused its settings."""
        code = self._process.poll()
        if code is None:
            return None
        if code == WRONG_SETTINGS:
            return code
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started_at > HEALTHY_S:
                self._back_off_s = BACK_OFF_S
            print_note(f"{self.command} ended with status {code}; again in {self._back_off_s:g} s")
            self._restart_at = now + self._back_off_s
            self._back_off_s = min(self._back_off_s * 2, BACK_OFF_MAX_S)
        elif now >= self._restart_at:
            self._start()
        return None

    def stop(self, signals: _Signals) -> None:
        """Let it finish, for at most `stop_s` seconds or until the next signal; then kill it."""
        seen, give_up_at = signals.count, time.monotonic() + self.stop_s
        if self._process.poll() is None:
            self._process.terminate()
        while self._process.poll() is None:
            if signals.count > max(seen, 1) or time.monotonic() > give_up_at:
                self._process.kill()
            time.sleep(POLL_S)

    def _start(self) -> None:
        """In a session of its own, out of reach of the terminal's Ctrl-C; stdout stays the banner's."""
        program = [sys.executable, "-m", "callgate", self.command]
        self._started_at, self._restart_at = time.monotonic(), None
        self._process = subprocess.Popen(  # noqa: S603 - the argument list is ours
            embedded_child.tied(program),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )

    _started_at: float
    _restart_at: float | None


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
        print_note("stopping: calls in flight finish first; Ctrl-C again stops at once")
        return 0
    finally:
        for child in children:
            child.stop(signals)


@contextmanager
def _env_file(folder: Path, shared: Mapping[str, str]) -> Iterator[None]:
    """Tell other processes of this account what they share with the worker, passwords included, while this runs."""
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
    """A client asks the gates of the same catalogue as the worker, wherever it runs."""
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
        print(  # noqa: T201 - the answer
            f"\ncallgate is up. Dashboard: {dashboard}\n"
            f"In another terminal (or: . {shlex.quote(str(options.data_dir / 'env'))}):\n\n"
            f"{_exports(shared)}\nCtrl-C stops everything."
        )
    sys.stdout.flush()
