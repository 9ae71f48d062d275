"""
Run quarantined calls in child processes: a call that kills its process affects no other call.

    worker ── id of a call ──► child: read, reserve, provider, record, publish; one call at a time
           ◄──── result ──────┘

A child takes the next quarantined call until none has come for some time. A few calls wait here for a free child, for
some seconds; the others are deferred in the ledger. Organisations take turns, and one organisation has at most half of
the children: its calls may kill their processes, but must not delay the recovery of others' calls. A child dies with
the worker, however that ends. It ignores the signals that stop the worker, because a drain lets it finish.
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
"""Calls that wait here per possible child. More would fill the worker's slots after a crash."""
WAIT_MAX_S = 10.0
"""How long a call waits here: the first child takes some seconds to start."""
DEFER_MIN_S, DEFER_MAX_S = 0.5, 30.0
"""For how long a call is deferred."""
IDLE_S = 2 * DEFER_MAX_S
"""How long an idle child is kept: until the deferred calls have returned."""
SERVED_S = 3600.0
"""How long an organisation's last turn is remembered: longer than a call may keep a child."""
WATCH_S = 0.5


class QuarantineExecutor:
    """
    Runs quarantined calls in child processes. One instance per worker; use it in the event loop only.

    Args:
        argv: The command of a fork server whose children run `worker.isolated.serve`.
        children_max: Children, and so quarantined calls, at once.
        healthy_since: Since when this worker reaches the ledger, by `clock.monotonic`; None while it does not. A child
            is not considered stuck meanwhile: it may be waiting for the ledger too.
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
        """Children of one organisation, at most."""
        self._calls: dict[CallKey, str] = {}
        """The calls that wait or run here, and their organisations."""
        self._busy: dict[Child, str] = {}
        self._idle: list[Child] = []
        self._waiting: dict[str, deque[asyncio.Future[Child]]] = {}
        """By organisation."""
        self._served_at: dict[str, float] = {}
        """When each organisation was last given a child."""
        self._fork_server: ForkServer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._run_s = 1.0
        """How long a call runs: a moving average."""
        self._queues_drain_at: dict[str, float] = {}

    async def __call__(
        self, key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult | Deferred:
        """Run one quarantined call if a child is, or soon becomes, free for it; see `quarantine.RunQuarantined`."""
        if key in self._calls:
            return DeliveryResult.NOT_CLAIMED
        if Counter(self._calls.values())[org_id] >= self._share * (1 + WAITING_PER_CHILD):
            return Deferred(self._retry_after_s(org_id))
        self._calls[key] = org_id
        try:
            async with asyncio.timeout(WAIT_MAX_S) as wait:
                child = await self._free_child(org_id)
                wait.reschedule(None)
                return await self._run(child, key, org_id, expires_in_s)
        except TimeoutError:
            return Deferred(self._retry_after_s(org_id))
        finally:
            del self._calls[key]
            self._start_children()

    async def aclose(self) -> None:
        """End the children; none of them may be running a call."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        while self._idle:
            await self._idle.pop().end()
        if self._fork_server is not None:
            await self._fork_server.end()

    def _retry_after_s(self, org_id: str) -> float:
        """
        When the organisation's deferred calls before this one will have run.

        The returns are spread over time, because of calls that returned together most would be deferred again.
        """
        now = monotonic()
        drain_at = {org: at for org, at in self._queues_drain_at.items() if at > now}
        ends_at = drain_at.get(org_id, now) + self._run_s / self._share
        drain_at[org_id] = min(ends_at, now + DEFER_MAX_S)
        self._queues_drain_at = drain_at
        return max(DEFER_MIN_S, drain_at[org_id] - now)

    async def _free_child(self, org_id: str) -> Child:
        turn: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org_id, deque()).append(turn)
        try:
            self._start_children()
            self._assign_children()
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._keep(turn.result())
            raise

    def _assign_children(self) -> None:
        """Give idle children to waiting calls, the organisations in turn."""
        self._idle = [child for child in self._idle if not child.has_ended]
        running = Counter(self._busy.values())
        while self._idle:
            self._waiting = {
                org: queue for org, queue in self._waiting.items() if _has_waiter(queue)
            }
            orgs = [org for org in self._waiting if running[org] < self._share]
            if not orgs:
                return
            # Not by the longest wait: an organisation whose calls time out here and return would always be last.
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
        usable = sum(min(n, self._share) for n in Counter(self._calls.values()).values())
        return children < min(usable, self._children_max)

    async def _start(self) -> None:
        """Start children one after the other, while calls wait: parallel starts slow each other down."""
        try:
            while self._wants_child():
                self._keep(await self._child())
        except Exception as exc:
            # Any error: without the pause every arriving call would start another try at once.
            log.error("quarantine.start_failed", reason=repr(exc))
            self._close_fork_server()
            await asyncio.sleep(START_AGAIN_S)
        finally:
            self._starting = None

    async def _child(self) -> Child:
        if self._fork_server is None or not self._fork_server.is_open:
            self._close_fork_server()
            self._fork_server = await ForkServer.started(self._argv)
        return await self._fork_server.child()

    def _close_fork_server(self) -> None:
        """Keep its children; the next child comes from a new fork server."""
        if self._fork_server is not None:
            self._fork_server.close()

    async def _run(
        self, child: Child, key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult:
        log.info("quarantine.call_started", call_id=str(key.call_id), pid=child.pid)
        began = monotonic()
        self._busy[child] = org_id
        try:
            result = await self._watched(child, key, expires_in_s)
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
            # The worker stops, and the drain is over: the call must not continue without the worker.
            await child.end()
            raise
        finally:
            self._busy.pop(child, None)
            self._run_s += (monotonic() - began - self._run_s) / 4
        self._keep(child)
        return result

    async def _watched(self, child: Child, key: CallKey, expires_in_s: float) -> DeliveryResult:
        """Wait for the child's answer; kill the child once the attempt must have expired."""
        began = monotonic()
        answer = asyncio.ensure_future(child.ask(key.task_id))
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=WATCH_S)
                since = self._healthy_since()
                if since is not None and monotonic() > max(began, since) + expires_in_s:
                    child.kill()
            if answer.result() not in set(DeliveryResult):
                raise ChildFailed(f"it answered {answer.result()!r}")
            return DeliveryResult(answer.result())
        finally:
            answer.cancel()
            await asyncio.wait({answer})

    def _keep(self, child: Child) -> None:
        self._busy.pop(child, None)
        self._idle.append(child)
        self._assign_children()
        asyncio.get_running_loop().call_later(IDLE_S, self._dismiss_if_idle, child, child.orders)

    def _dismiss_if_idle(self, child: Child, orders: int) -> None:
        if child in self._idle and child.orders == orders:
            self._idle.remove(child)
            child.dismiss()
        if not (self._idle or self._calls or self._starting):
            self._close_fork_server()


def _has_waiter(queue: deque[asyncio.Future[Child]]) -> bool:
    """Drop the futures of calls that gave up; tell if any is left."""
    while queue and queue[0].done():
        queue.popleft()
    return bool(queue)
