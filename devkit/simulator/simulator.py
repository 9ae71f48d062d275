"""
A simulated provider for tests: a real HTTP server in the format of OpenAI, with scripted answers and faults.

    with Simulator() as provider:
        provider.script([Rule(reply=[Step(kind=Kind.STATUS, status=429), Step()])])
        client = AsyncOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)
        ...
        assert provider.counts().total == 2

It runs in a process of its own: its owner needs no event loop, and it outlives the workers under test. By
hand: `callgate simulator rules.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from callgate.cli.output import print_json
from callgate.domain.errors import ConfigurationError
from devkit.processes import stop
from devkit.simulator.journal import Counts, ReceivedBody, ReceivedRequest
from devkit.simulator.limits import Arrival, LimitCounts, ProviderLimits
from devkit.simulator.script import (
    RULES,
    ErrorBody,
    Kind,
    Lognormal,
    Match,
    ReportedUsage,
    Rule,
    ScriptedCall,
    Step,
    Uniform,
)
from devkit.simulator.server import (
    ARRIVALS,
    ATTEMPT_HEADER,
    BODIES,
    LIMITS,
    RECORDS,
    RECORDS_PER_PAGE_MAX,
    ProviderServer,
)

__all__ = [
    "ATTEMPT_HEADER",
    "Arrival",
    "Counts",
    "ErrorBody",
    "Kind",
    "LimitCounts",
    "Lognormal",
    "Match",
    "ProviderLimits",
    "ReceivedBody",
    "ReceivedRequest",
    "ReportedUsage",
    "Requests",
    "Rule",
    "ScriptedCall",
    "Simulator",
    "SimulatorFailed",
    "Step",
    "Uniform",
]

Row = TypeVar("Row")

HOST = "127.0.0.1"
BACKLOG = 4_096
OPEN_FILES_MAX = 65_536
OWNER_POLL_S = 0.2
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
CONTROL_TIMEOUT_S = 30.0


class SimulatorFailed(RuntimeError):
    """The simulator did not start, or refused a request of its owner."""


@dataclass(frozen=True)
class Requests:
    """Every request in order of arrival, and their counts."""

    counts: Counts
    records: tuple[ReceivedRequest, ...]


class Simulator:
    """
    Runs a simulated provider in a child process, inside a `with`.

    The child also ends within a second after its owner has died.
    """

    def __init__(self, limits: ProviderLimits | None = None) -> None:
        self._first_limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        command = ["--port", "0", "--owner-pid", str(os.getpid())]
        command += ["--limits", LIMITS.dump_json(self._first_limits).decode()]
        self._process = subprocess.Popen(  # noqa: S603  # Our own module and arguments.
            [sys.executable, "-m", "devkit.simulator.simulator", *command],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            self._port = json.loads(_first_line(self._process))["port"]
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def base_url(self) -> str:
        """The `base_url` for an OpenAI client."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def pid(self) -> int:
        """The id of the child process."""
        return self._running().pid

    def script(self, rules: Sequence[Rule | dict[str, Any]]) -> None:
        """
        Answer later requests by these rules, each from its first step.

        Raises:
            pydantic.ValidationError: A rule is malformed; nothing has changed.
        """
        self._ask("POST", "/__control/script", RULES.dump_json(RULES.validate_python(rules)))

    def limit(self, limits: ProviderLimits | None) -> None:
        """Enforce other limits from now on, or none. What was counted still counts."""
        self._ask("POST", "/__control/limits", LIMITS.dump_json(limits))

    def limit_counts(self) -> LimitCounts:
        """Return how many requests the limits accepted and refused."""
        return LimitCounts.model_validate_json(self._ask("GET", "/__control/limits"))

    def arrivals(self) -> tuple[Arrival, ...]:
        """Return when each request arrived, and whether the limits accepted it."""
        return tuple(self._pages("/__control/arrivals", ARRIVALS))

    def reset(self) -> None:
        """Forget every request and every rule, and enforce the limits that were given at the start."""
        self._ask("POST", "/__control/reset")

    def counts(self) -> Counts:
        """Return the counts of all requests so far."""
        return Counts.model_validate_json(self._ask("GET", "/__control/counts"))

    def requests(self) -> Requests:
        """Return all requests so far, and their counts."""
        return Requests(self.counts(), tuple(self._pages("/__control/records", RECORDS)))

    def bodies(self) -> list[ReceivedBody]:
        """Return what the newest requests said, oldest first; see `journal.BODIES_MAX`."""
        return BODIES.validate_json(self._ask("GET", "/__control/bodies"))

    def _pages(self, path: str, pages: TypeAdapter[list[Row]]) -> Iterator[Row]:
        first = 0
        while True:
            page = pages.validate_json(self._ask("GET", f"{path}?first={first}"))
            yield from page
            first += len(page)
            if len(page) < RECORDS_PER_PAGE_MAX:
                return

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        self._running()
        connection = http.client.HTTPConnection(HOST, self._port, timeout=CONTROL_TIMEOUT_S)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise SimulatorFailed(f"{method} {path}: {response.status} {content.decode()}")
        return content

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise SimulatorFailed("the simulator is not running; use it in a `with` block")
        return self._process

    def _stop(self) -> None:
        process = self._running()
        self._process = None
        stop(process, STOP_TIMEOUT_S)
        _output(process).close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the line that says the child is ready, or raise if it says none in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(_output(process), selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT_S):
            raise SimulatorFailed(f"the simulator said nothing within {START_TIMEOUT_S} s")
    line = _output(process).readline()
    if not line:
        raise SimulatorFailed("the simulator ended while starting; its reason is on stderr")
    return line


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None, "the child is always started with a pipe"
    return process.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the owner has ended."""
    parser = argparse.ArgumentParser(
        prog="python -m devkit.simulator.simulator", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", type=Path, help="a JSON file with a list of rules")
    parser.add_argument("--limits", type=LIMITS.validate_json, help='like {"requests": 120}')
    parser.add_argument(
        "--ready-file", type=Path, help="a file for the line that is printed when ready"
    )
    parser.add_argument("--owner-pid", type=int, help="the parent process; end when it is gone")
    options = parser.parse_args(arguments)
    rules = RULES.validate_json(options.script.read_bytes()) if options.script else ()
    _allow_many_connections()
    server = ProviderServer(rules, limits=options.limits)
    say = partial(_say_ready, ready_file=options.ready_file)
    asyncio.run(_serve(server, options.port, say, options.owner_pid))


def serve(port: int, script: Path | None, *, as_json: bool) -> int:
    """
    Serve until SIGTERM or SIGINT, as `callgate simulator` does.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: The script cannot be read, or the port is taken.
    """
    try:
        rules = RULES.validate_json(script.read_bytes()) if script else ()
    except (OSError, ValidationError) as exc:
        raise ConfigurationError(f"the script {script} cannot be used: {exc}") from exc
    _allow_many_connections()

    def say(port: int) -> None:
        url = f"http://{HOST}:{port}/v1"
        if as_json:
            print_json({"base_url": url, "port": port})
        else:
            print(  # noqa: T201 - the banner
                f"The simulated provider listens at {url}; Ctrl-C ends it."
            )
        sys.stdout.flush()

    try:
        asyncio.run(_serve(ProviderServer(rules), port, say, None))
    except OSError as exc:
        raise ConfigurationError(f"cannot listen at {HOST}:{port}: {exc.strerror}") from exc
    return 0


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: the usual 1,024 is less than the number of calls in flight."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


async def _serve(
    server: ProviderServer, port: int, say: Callable[[int], None], owner_pid: int | None
) -> None:
    # Cancellation ends a hanging answer when its client disconnects, so that its socket is closed.
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=BACKLOG).start()
    say(runner.addresses[0][1])
    await _until_stopped(owner_pid)


def _say_ready(port: int, ready_file: Path | None) -> None:
    line = json.dumps({"port": port}) + "\n"
    if ready_file is not None:
        # Renamed when complete: a reader never sees half a line.
        draft = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        draft.write_text(line)
        draft.replace(ready_file)
    sys.stdout.write(line)
    sys.stdout.flush()


async def _until_stopped(owner_pid: int | None) -> None:
    stop = asyncio.Event()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stopping, stop.set)
    # Polled: a pipe to the owner would stay open in processes that the owner forks.
    while owner_pid is None or os.getppid() == owner_pid:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), OWNER_POLL_S)
            return


if __name__ == "__main__":
    main()
