"""
Suspects, each in a process of its own: what kills that process takes nothing else along.

    worker ── id of a call ──► child: read, reserve, provider, record, publish; one call at a time
           ◄── what it came to ──┘

A child goes on with the next suspect until none has come for a while. A few suspects wait here for a free child, not
for long; the others are put off, in the ledger. Organisations take turns, and one has half of the children at most: its
calls may kill their workers, and must not keep those of others from being recovered. A child dies with the worker,
however that ends. Signals that stop the worker do not reach it, for a drain lets it finish.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from callgate.adapters.system_clock import monotonic
from callgate.domain.calls import CallKey
from callgate.services.delivery_result import Deferred, DeliveryResult
from worker.isolation.forkserver import Child, ChildFailed, ForkServer

log = structlog.get_logger(__name__)

FORKSERVER_ARGV = (sys.executable, "-m", "worker.isolated")
START_AGAIN_S = 10.0
"""The pause after a child that did not start."""
WAITING_PER_CHILD = 8
"""Suspects that wait here for each child there may be. More would fill the worker's slots after a crash."""
WAIT_MAX_S = 10.0
"""How long they do: a first child takes some seconds."""
TURN_MIN_S, TURN_MAX_S = 0.5, 30.0
"""How long a suspect is put off at once."""
IDLE_S = 2 * TURN_MAX_S
"""How long a child without a call is kept: until those that were put off have come again."""
SERVED_S = 3600.0
"""How long it is remembered when an organisation last had a child: longer than a suspect may keep one."""
WATCH_S = 0.5


class QuarantineExecutor:
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
        self._share = max(1, children_max // 2)
        """How many of them one organisation has at most."""
        self._here: dict[CallKey, str] = {}
        """Suspects that wait or run, and whose they are."""
        self._busy: dict[Child, str] = {}
        self._idle: list[Child] = []
        self._waiting: dict[str, deque[asyncio.Future[Child]]] = {}
        """By organisation."""
        self._served_at: dict[str, float] = {}
        """When organisations were last given a child."""
        self._fork_server: ForkServer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._turn_s = 1.0
        """How long a suspect takes, as the last ones did."""
        self._queues_drain_at: dict[str, float] = {}

    async def __call__(
        self, key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult | Deferred:
        """Run one suspect if a child is, or soon becomes, free for it; see `quarantine.RunQuarantined`."""
        if key in self._here:
            return DeliveryResult.NOT_CLAIMED
        if Counter(self._here.values())[org_id] >= self._share * (1 + WAITING_PER_CHILD):
            return Deferred(self._retry_after_s(org_id))
        self._here[key] = org_id
        try:
            async with asyncio.timeout(WAIT_MAX_S) as patience:
                child = await self._free_child(org_id)
                patience.reschedule(None)
                return await self._run(child, key, org_id, expires_in_s)
        except TimeoutError:
            return Deferred(self._retry_after_s(org_id))
        finally:
            del self._here[key]
            self._start_children()

    async def aclose(self) -> None:
        """End the children; none may have a call."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        while self._idle:
            await self._idle.pop().end()
        if self._fork_server is not None:
            await self._fork_server.end()

    def _retry_after_s(self, org_id: str) -> float:
        """The end of the line of its calls that were put off: if all came back at once, most would come in vain."""
        now = monotonic()
        lines = {org: at for org, at in self._queues_drain_at.items() if at > now}
        ends_at = lines.get(org_id, now) + self._turn_s / self._share
        lines[org_id] = min(ends_at, now + TURN_MAX_S)
        self._queues_drain_at = lines
        return max(TURN_MIN_S, lines[org_id] - now)

    async def _free_child(self, org_id: str) -> Child:
        turn: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org_id, deque()).append(turn)
        try:
            self._start_children()
            self._serve()
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._keep(turn.result())
            raise

    def _serve(self) -> None:
        """Give idle children to those who wait, the organisations in turn."""
        self._idle = [child for child in self._idle if not child.has_ended]
        running = Counter(self._busy.values())
        while self._idle:
            self._waiting = {
                org: line for org, line in self._waiting.items() if _is_waited_in(line)
            }
            orgs = [org for org in self._waiting if running[org] < self._share]
            if not orgs:
                return
            # Not by who waits longest here: who gave up and comes again would be last each time.
            org = min(orgs, key=lambda org: self._served_at.get(org, 0.0))
            self._note_served(org)
            child = self._idle.pop()
            running[org] += 1
            self._busy[child] = org
            self._waiting[org].popleft().set_result(child)

    def _note_served(self, org: str) -> None:
        now = monotonic()
        self._served_at = {o: at for o, at in self._served_at.items() if at > now - SERVED_S}
        self._served_at[org] = now

    def _start_children(self) -> None:
        if self._starting is None and self._wants_child():
            self._starting = asyncio.create_task(self._start())

    def _wants_child(self) -> bool:
        children = len(self._busy) + len(self._idle)
        usable = sum(min(n, self._share) for n in Counter(self._here.values()).values())
        return children < min(usable, self._children_max)

    async def _start(self) -> None:
        """One after the other, while suspects wait: children that start at once make each other slow."""
        try:
            while self._wants_child():
                self._keep(await self._child())
        except Exception as exc:
            # Whatever it was: without the pause every suspect that comes would try again at once.
            log.error("quarantine.start_failed", reason=repr(exc))
            self._close_nursery()
            await asyncio.sleep(START_AGAIN_S)
        finally:
            self._starting = None

    async def _child(self) -> Child:
        if self._fork_server is None or not self._fork_server.is_open:
            self._close_nursery()
            self._fork_server = await ForkServer.started(self._argv)
        return await self._fork_server.child()

    def _close_nursery(self) -> None:
        """The children that it has go on; the next child comes from another."""
        if self._fork_server is not None:
            self._fork_server.close()

    async def _run(
        self, child: Child, key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult:
        log.info("quarantine.call_started", call_id=str(key.call_id), pid=child.pid)
        began = monotonic()
        self._busy[child] = org_id
        try:
            executed = await self._watched(child, key, expires_in_s)
        except (OSError, ChildFailed) as exc:
            await child.end()
            log.error(
                "quarantine.process_lost",
                call_id=str(key.call_id),
                pid=child.pid,
                reason=str(exc),
            )
            return DeliveryResult.WORKER_LOST
        except BaseException:
            # The drain is over, or there is none: the call may not go on without its worker.
            await child.end()
            raise
        finally:
            self._busy.pop(child, None)
            self._turn_s += (monotonic() - began - self._turn_s) / 4
        self._keep(child)
        return executed

    async def _watched(self, child: Child, key: CallKey, expires_in_s: float) -> DeliveryResult:
        """Wait for the child's answer; kill it if the call's lease must be over, for then nobody waits for it."""
        began = monotonic()
        answer = asyncio.ensure_future(child.ask(key.task_id))
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=WATCH_S)
                since = self._healthy_since()
                if since is not None and monotonic() > max(began, since) + expires_in_s:
                    child.kill()
            if answer.result() not in set(DeliveryResult):
                raise ChildFailed(f"it said {answer.result()!r}")
            return DeliveryResult(answer.result())
        finally:
            answer.cancel()
            await asyncio.wait({answer})

    def _keep(self, child: Child) -> None:
        self._busy.pop(child, None)
        self._idle.append(child)
        self._serve()
        asyncio.get_running_loop().call_later(IDLE_S, self._dismiss_if_idle, child, child.orders)

    def _dismiss_if_idle(self, child: Child, orders: int) -> None:
        if child in self._idle and child.orders == orders:
            self._idle.remove(child)
            child.dismiss()
        if not (self._idle or self._here or self._starting):
            self._close_nursery()


def _is_waited_in(line: deque[asyncio.Future[Child]]) -> bool:
    """Forget those who gave up; say if anybody is left."""
    while line and line[0].done():
        line.popleft()
    return bool(line)
