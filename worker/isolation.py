"""
Suspects, each in a process of its own: what kills that process takes nothing else along.

    worker ── id of a call ──► child: read, reserve, provider, record, publish; one call at a time
           ◄── what it came to ──┘

A child goes on with the next suspect until none has come for a while. A few suspects wait here for a free child, not
for long; the others are put off, in the ledger. A child dies with the worker, however that ends. Signals that stop the
worker do not reach it, for a drain lets it finish.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

import structlog

from callgate.domain.ledger import CallKey
from callgate.services.llm_service import Busy, Executed
from worker.clock import monotonic
from worker.nursery import Child, ChildFailed, Nursery

log = structlog.get_logger(__name__)

NURSERY_ARGV = (sys.executable, "-m", "worker.isolated")
START_AGAIN_S = 10.0
"""The pause after a child that did not start."""
WAITING_PER_CHILD = 8
"""Suspects that wait here for each child there may be. More would fill the worker's slots after a crash."""
WAIT_MAX_S = 10.0
"""How long they do: a first child takes some seconds."""
TURN_S_MIN, TURN_S_MAX = 0.5, 30.0
"""How long a suspect is put off at once."""
IDLE_S = 2 * TURN_S_MAX
"""How long a child without a call is kept: until those that were put off have come again."""
WATCH_S = 0.5


class Isolation:
    """
    Runs suspects in child processes; one instance per worker, used in its event loop only.

    Args:
        argv: The command of a nursery of children which run `worker.isolated.serve`.
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
        self._here: set[CallKey] = set()
        """Suspects that wait or run."""
        self._busy: set[Child] = set()
        self._idle: list[Child] = []
        self._freed = asyncio.Semaphore(0)
        """Released for each child that becomes idle; it may be gone again when somebody takes it."""
        self._nursery: Nursery | None = None
        self._starting: asyncio.Task[None] | None = None
        self._turn_s = 1.0
        """How long a suspect takes, as the last ones did."""
        self._line_ends_at = 0.0

    async def __call__(self, key: CallKey, lease_s: float) -> Executed | Busy:
        """Run one suspect if a child is, or soon becomes, free for it; see `llm_service.Isolate`."""
        if key in self._here:
            return Executed.NOT_CLAIMED
        if len(self._here) >= self._children_max * (1 + WAITING_PER_CHILD):
            return Busy(self._turn_in_s())
        self._here.add(key)
        try:
            async with asyncio.timeout(WAIT_MAX_S) as patience:
                child = await self._free_child()
                patience.reschedule(None)
                return await self._run(child, key, lease_s)
        except TimeoutError:
            return Busy(self._turn_in_s())
        finally:
            self._here.discard(key)
            self._start_children()

    async def aclose(self) -> None:
        """End the children; none may have a call."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        while self._idle:
            await self._idle.pop().end()
        if self._nursery is not None:
            await self._nursery.end()

    def _turn_in_s(self) -> float:
        """The end of the line of those that were put off: if all came back at once, most would come in vain."""
        now = monotonic()
        ends_at = max(now, self._line_ends_at) + self._turn_s / self._children_max
        self._line_ends_at = min(ends_at, now + TURN_S_MAX)
        return max(TURN_S_MIN, self._line_ends_at - now)

    async def _free_child(self) -> Child:
        while True:
            self._start_children()
            await self._freed.acquire()
            if self._idle and not (child := self._idle.pop()).has_ended:
                return child

    def _start_children(self) -> None:
        if self._starting is None and self._wants_child():
            self._starting = asyncio.create_task(self._start())

    def _wants_child(self) -> bool:
        children = len(self._busy) + len(self._idle)
        return children < min(len(self._here), self._children_max)

    async def _start(self) -> None:
        """One after the other, while suspects wait: children that start at once make each other slow."""
        try:
            while self._wants_child():
                self._keep(await self._child())
        except Exception as exc:
            # Whatever it was: without the pause every suspect that comes would try again at once.
            log.error("no_process_for_suspects", reason=repr(exc))
            self._close_nursery()
            await asyncio.sleep(START_AGAIN_S)
        finally:
            self._starting = None

    async def _child(self) -> Child:
        if self._nursery is None or not self._nursery.is_open:
            self._close_nursery()
            self._nursery = await Nursery.started(self._argv)
        return await self._nursery.child()

    def _close_nursery(self) -> None:
        """The children that it has go on; the next child comes from another."""
        if self._nursery is not None:
            self._nursery.close()

    async def _run(self, child: Child, key: CallKey, lease_s: float) -> Executed:
        log.info("suspect_runs_alone", call_id=str(key.call_id), pid=child.pid)
        began = monotonic()
        self._busy.add(child)
        try:
            executed = await self._watched(child, key, lease_s)
        except (OSError, ChildFailed) as exc:
            await child.end()
            log.error(
                "suspect_lost_its_process",
                call_id=str(key.call_id),
                pid=child.pid,
                reason=str(exc),
            )
            return Executed.LOST
        except BaseException:
            # The drain is over, or there is none: the call may not go on without its worker.
            await child.end()
            raise
        finally:
            self._busy.discard(child)
            self._turn_s += (monotonic() - began - self._turn_s) / 4
        self._keep(child)
        return executed

    async def _watched(self, child: Child, key: CallKey, lease_s: float) -> Executed:
        """Wait for the child's answer; kill it if the call's lease must be over, for then nobody waits for it."""
        began = monotonic()
        answer = asyncio.ensure_future(child.ask(key.task_id))
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=WATCH_S)
                since = self._healthy_since()
                if since is not None and monotonic() > max(began, since) + lease_s:
                    child.kill()
            if answer.result() not in set(Executed):
                raise ChildFailed(f"it said {answer.result()!r}")
            return Executed(answer.result())
        finally:
            answer.cancel()
            await asyncio.wait({answer})

    def _keep(self, child: Child) -> None:
        self._idle.append(child)
        self._freed.release()
        asyncio.get_running_loop().call_later(IDLE_S, self._dismiss_if_idle, child, child.orders)

    def _dismiss_if_idle(self, child: Child, orders: int) -> None:
        if child in self._idle and child.orders == orders:
            self._idle.remove(child)
            child.dismiss()
        if not (self._idle or self._here or self._starting):
            self._close_nursery()
