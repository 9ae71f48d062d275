"""
Calls that were lost before, each in a process of its own: what kills that process takes nothing else along.

    worker ── id of a call ──► child: read, reserve, provider, record, publish; one call at a time
           ◄── what it came to ──┘

A child costs a process start, so it goes on with the next suspect until none has come for a while. Suspects that find
no child free are put off, in the ledger; so nothing waits here, for a child or for its start. A child dies with the
worker, however that ends. Signals that stop the worker do not reach it, for a drain lets it finish.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

from callgate.domain.ledger import CallKey
from callgate.services.llm_service import Busy, Executed
from worker.clock import monotonic

log = structlog.get_logger(__name__)

CHILD_ARGV = (sys.executable, "-m", "worker.isolated")
READY = b"ready\n"
CHECKOUT = Path(__file__).parents[1]
START_MAX_S = 60.0
"""How long a child may take until it can run calls."""
START_AGAIN_S = 10.0
"""The pause after a child that did not start."""
TURN_S_MIN, TURN_S_MAX = 0.5, 30.0
"""How long a suspect is put off at once."""
IDLE_S = 2 * TURN_S_MAX
"""How long a child without a call is kept: until those that were put off have come again."""
WATCH_S = 0.5


class ChildFailed(Exception):
    """A child did not start, or ended before it said what its call came to."""


class Isolation:
    """
    Runs suspects in child processes; one instance per worker, used in its event loop only.

    Args:
        argv: Starts a child, which then runs `worker.isolated.serve`.
        children_max: Children, and so suspects, at once.
        healthy_since: Since when this process's own database access is healthy, by `clock.monotonic`; None if it is
            not. Who was away from the ledger may not call a child stuck that perhaps only waits for it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        children_max: int,
        healthy_since: Callable[[], float | None],
    ) -> None:
        self._argv = argv
        self._children_max = children_max
        self._healthy_since = healthy_since
        self._running: set[CallKey] = set()
        self._idle: list[_Child] = []
        self._starting: asyncio.Task[None] | None = None
        self._turn_s = 1.0
        """How long a suspect takes, as the last ones did."""
        self._line_ends_at = 0.0

    async def __call__(self, key: CallKey, lease_s: float) -> Executed | Busy:
        """Run one suspect if a child is free for it; see `llm_service.Isolate`."""
        if key in self._running:
            return Executed.NOT_CLAIMED
        child = self._take_idle()
        if child is None:
            self._start_another()
            return Busy(self._turn_in_s())
        began = monotonic()
        self._running.add(key)
        try:
            return await self._run(child, key, lease_s)
        finally:
            self._running.discard(key)
            self._turn_s += (monotonic() - began - self._turn_s) / 4

    async def aclose(self) -> None:
        """End the children; none may have a call."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        while self._idle:
            await self._idle.pop().end()

    def _turn_in_s(self) -> float:
        """The end of the line of those that were put off: if all came back at once, most would come in vain."""
        now = monotonic()
        ends_at = max(now, self._line_ends_at) + self._turn_s / self._children_max
        self._line_ends_at = min(ends_at, now + TURN_S_MAX)
        return max(TURN_S_MIN, self._line_ends_at - now)

    def _start_another(self) -> None:
        """One after the other: children that start at once would make each other slow."""
        if self._starting is None and len(self._running) < self._children_max:
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            self._keep(await _Child.started(self._argv))
        except (OSError, TimeoutError, ChildFailed) as exc:
            log.error("no_process_for_suspects", reason=repr(exc))
            await asyncio.sleep(START_AGAIN_S)
        finally:
            self._starting = None

    async def _run(self, child: _Child, key: CallKey, lease_s: float) -> Executed:
        log.info("suspect_runs_alone", call_id=str(key.call_id), pid=child.pid)
        try:
            executed = await self._watched(child, key, lease_s)
        except (OSError, ChildFailed) as exc:
            await child.end()
            log.error(
                "suspect_lost_its_process",
                call_id=str(key.call_id),
                reason=str(exc),
                exit_code=child.exit_code,
            )
            return Executed.LOST
        except BaseException:
            # The drain is over, or there is none: the call may not go on without its worker.
            await child.end()
            raise
        self._keep(child)
        return executed

    async def _watched(self, child: _Child, key: CallKey, lease_s: float) -> Executed:
        """Wait for the child's answer; kill it if the call's lease must be over, for then nobody waits for it."""
        began = monotonic()
        answer = asyncio.ensure_future(child.execute(key))
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=WATCH_S)
                since = self._healthy_since()
                if since is not None and monotonic() > max(began, since) + lease_s:
                    child.kill()
            return answer.result()
        finally:
            answer.cancel()
            await asyncio.wait({answer})

    def _take_idle(self) -> _Child | None:
        while self._idle:
            child = self._idle.pop()
            if child.exit_code is None:
                return child
        return None

    def _keep(self, child: _Child) -> None:
        self._idle.append(child)
        asyncio.get_running_loop().call_later(IDLE_S, self._dismiss_if_idle, child, child.calls)

    def _dismiss_if_idle(self, child: _Child, calls: int) -> None:
        if child in self._idle and child.calls == calls:
            self._idle.remove(child)
            child.dismiss()


class _Child:
    """One process that runs one call at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._orders = process.stdin
        self._answers = process.stdout
        self.pid = process.pid
        self.calls = 0
        """Calls it was given so far."""

    @classmethod
    async def started(cls, argv: Sequence[str]) -> Self:
        """
        Start a child, tied to this process's life; its log lines go where this process's go.

        Raises:
            OSError, TimeoutError, ChildFailed
        """
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("embedded_child.py"))]
        tie = [str(os.getpid()), "-1", "-1", "0"]
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        process = await asyncio.create_subprocess_exec(
            *launcher,
            *tie,
            *argv,
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(START_MAX_S):
                if await child._answers.readline() != READY:
                    raise ChildFailed("it did not start")
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def exit_code(self) -> int | None:
        """None until it has ended; negative if a signal ended it."""
        return self._process.returncode

    async def execute(self, key: CallKey) -> Executed:
        """
        Have it run a call.

        Raises:
            OSError, ChildFailed: It ended meanwhile, or before.
        """
        self.calls += 1
        self._orders.write(f"{key.task_id}\n".encode())
        await self._orders.drain()
        answer = (await self._answers.readline()).decode().strip()
        if answer not in set(Executed):
            raise ChildFailed(f"it said {answer!r}" if answer else "it ended")
        return Executed(answer)

    def dismiss(self) -> None:
        """Tell it that no more calls come; it then ends by itself."""
        self._orders.close()

    def kill(self) -> None:
        """Kill it, if it is still there."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kill it; return when it is gone, and its pipes are closed."""
        self.kill()
        await self._answers.read()
        await self._process.wait()
