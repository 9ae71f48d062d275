"""
Virtual time, and greenlets that stop at every step.

Each actor (a task, a loop, a pipeline) is a greenlet. It runs until it waits for something; then the event that is
next in time runs. Nothing else happens at once, so a seed repeats a history exactly. Services that block and
coroutines are driven alike: a coroutine's ports block too, so that it never suspends by itself.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
TRACE_LINES_MAX = 100_000
"""Kept of one life: many times what any had."""


class Died(BaseException):
    """The process is gone: thrown into its greenlets, so that they end where they stand."""


class Owner:
    """A process, as the scheduler knows it: it may pause, and it may die with all its greenlets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.paused_until = 0.0
        self.greenlets: list[greenlet] = []

    def after_death(self) -> None:
        """What the world does about it."""


class Event(NamedTuple):
    """Something that happens at a time; those of the same time in the order they were planned."""

    at: float
    number: int
    action: Callable[[], object]
    owner: Owner
    is_idle: bool
    """Of a loop that only looks whether there is work: time may skip it."""


class Scheduler:
    """Runs events in order of time."""

    def __init__(self, seed: int, starts_at: Callable[[random.Random], datetime]) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.now = 0.0
        """Seconds since the start."""
        self.starts_at = starts_at(self.rng)
        self.world = Owner("world")
        """Owns what no process can take with it: statements under way, timers of the broker."""
        self.steps = 0
        self.busy = 0
        """Events that are planned and not idle."""
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=TRACE_LINES_MAX)
        """When, who, what: everything but what was idle."""
        self._hash = hashlib.sha256()
        self._events: list[Event] = []
        self._numbers = itertools.count()
        self._hub = getcurrent()

    def time(self) -> datetime:
        """The ledger's clock."""
        return self.starts_at + timedelta(seconds=self.now)

    def tell(self, who: str, what: str, *, idle: bool = False) -> None:
        """Write a line of the trace; idle is what found nothing to do, and is not shown to anybody."""
        if not idle:
            self.trace.append((self.now, who, what))
        self._hash.update(f"{self.now:.6f} {who} {what}\n".encode())

    def trace_hash(self) -> str:
        """The whole trace as 16 hex digits: equal for equal histories."""
        return self._hash.hexdigest()[:16]

    # Plan.

    def after(
        self,
        delay_s: float,
        action: Callable[[], object],
        owner: Owner | None = None,
        *,
        idle: bool = False,
    ) -> None:
        """Plan an event."""
        event = Event(self.now + delay_s, next(self._numbers), action, owner or self.world, idle)
        heapq.heappush(self._events, event)
        self.busy += not idle

    def spawn(self, owner: Owner, action: Callable[[], object], delay_s: float = 0.0) -> None:
        """Start a greenlet of a process."""

        def body() -> None:
            try:
                action()
            except Died:
                pass
            finally:
                owner.greenlets.remove(actor)

        actor = greenlet(body, parent=self._hub)
        owner.greenlets.append(actor)
        self.after(delay_s, actor.switch, owner)

    # Wait, from within a greenlet.

    def wait(self, delay_s: float, owner: Owner, *, idle: bool = False) -> None:
        """Let time pass."""
        self.suspend(lambda resume: self.after(delay_s, resume, owner, idle=idle))

    def suspend(self, arrange: Callable[[Callable[[], object]], object]) -> None:
        """Stop here until what `arrange` was given is called, which it must be once; from an event, not at once."""
        actor = getcurrent()
        arrange(lambda: None if actor.dead else actor.switch())
        self._hub.switch()

    def die(self, owner: Owner, why: str) -> NoReturn:
        """Kill the process that is running right now."""
        self.suspend(lambda _: self.after(0.0, lambda: self.kill(owner, why)))
        raise AssertionError("a dead process went on")

    def kill(self, owner: Owner, why: str) -> None:
        """Kill a process: its memory is gone, what it had begun at others goes on. From an event only."""
        if not owner.is_alive:
            return
        self.tell(owner.name, f"DIES {why}")
        self.counts["process died"] += 1
        owner.is_alive = False
        for actor in list(owner.greenlets):
            if actor:
                actor.throw(Died)
        owner.greenlets.clear()
        owner.after_death()

    # Run.

    def run(self, *, is_over: Callable[[], bool], skip_to: Callable[[], float | None]) -> None:
        """
        Run events until it is over or nothing is planned.

        Args:
            skip_to: Asked while only idle events are planned: the next time that matters, if that is known.
        """
        while self._events and not is_over():
            if self.busy == 0 and (at := skip_to()) is not None:
                self.now = max(self.now, at)
            event = heapq.heappop(self._events)
            self.busy -= not event.is_idle
            owner = event.owner
            if not owner.is_alive:
                continue
            self.now = max(self.now, event.at)
            if owner.paused_until > self.now:
                self.after(owner.paused_until - self.now, event.action, owner, idle=event.is_idle)
                continue
            self.steps += 1
            event.action()

    def close(self) -> None:
        """End what is still suspended, so that nothing runs when it is collected."""
        for owner in {event.owner.name: event.owner for event in self._events}.values():
            owner.is_alive = False
            for actor in list(owner.greenlets):
                if actor:
                    actor.throw(Died)
        self._events.clear()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose ports block: it ends at the first push."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a coroutine waited for something that is no port")
