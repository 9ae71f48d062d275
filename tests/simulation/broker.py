"""
A model of the broker: our transport's semantics over Redis.

A message is forgotten when it is popped, and vanishes with its consumer. It may come twice, the second time also long
after the first, or while that is still at work. A flush forgets everything. Nothing here is needed for safety: the
ledger knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.delivery import Delivery, Published
from callgate.domain.errors import BrokerUnavailable
from tests.simulation.faults import MESSAGE, PUBLISH
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

REPEATED_WITHIN_S = 45.0
"""More than deadline plus grace."""
Body = CallKey | AttemptRef | datetime


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A call task, a log task or a sweep, by the type of its body."""

    body: Body


CALLS_FIRST_EVERY = 8
"""Each eighth time a consumer asks the queue of calls before the express lane."""


class Broker:
    """Three queues: log tasks, calls with sweeps between them, and the express lane of calls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._logs: list[Message] = []
        self._calls: dict[Lane, list[Message]] = {Lane.EXPRESS: [], Lane.CALL: []}
        self._pops = 0
        self.away_until = 0.0

    def put(self, body: Body, lane: Lane = Lane.CALL) -> None:
        """Take a message."""
        scheduler, rng = self._world.scheduler, self._world.rng
        scheduler.counts["express"] += lane is Lane.EXPRESS
        queue = self._queue_of(body, lane)
        queue.append(Message(body))
        fate = self._world.faults.one_of(MESSAGE)
        if fate:
            scheduler.counts[fate] += 1
            scheduler.tell("broker", f"{self._world.named(body)}: {fate}")
        if fate == "repeated":
            scheduler.after(
                rng.uniform(0, REPEATED_WITHIN_S), lambda: self._repeat(body, lane), idle=True
            )
        if fate == "lost at pop":
            queue.pop()
        scheduler.after(rng.uniform(1, 40) if fate == "late" else rng.uniform(0, 0.05), self.pump)

    def pump(self) -> None:
        """Hand out what consumers have room for; not always in order."""
        while self._logs and (consumers := self._world.consumers()):
            self._hand_out(self._logs, consumers)
        while (queue := self._next_queue()) and (consumers := self._world.consumers()):
            self._pops += 1
            self._hand_out(queue, consumers)

    def flush(self) -> None:
        """Forget everything, as a broker without persistence does when it restarts."""
        self._world.scheduler.counts["broker flushed"] += 1
        self._world.scheduler.tell("broker", "FLUSHED")
        for queue in (self._logs, *self._calls.values()):
            queue.clear()

    def _queue_of(self, body: Body, lane: Lane) -> list[Message]:
        return self._logs if isinstance(body, AttemptRef) else self._calls[lane]

    def _next_queue(self) -> list[Message]:
        express, calls = self._calls[Lane.EXPRESS], self._calls[Lane.CALL]
        first, second = (
            (calls, express) if self._pops % CALLS_FIRST_EVERY == 7 else (express, calls)
        )
        return first or second

    def _hand_out(self, queue: list[Message], consumers: Sequence[Process]) -> None:
        rng = self._world.rng
        index = rng.randrange(len(queue)) if rng.random() < 0.1 else 0
        rng.choice(consumers).take(queue.pop(index))

    def _repeat(self, body: Body, lane: Lane) -> None:
        self._world.scheduler.counts["message delivered again"] += 1
        self._queue_of(body, lane).append(Message(body))
        self.pump()


class FaultyBroker:
    """`QueuePort` as one process sees it: publishing is a step, and a failure leaves unknown what arrived."""

    def __init__(self, world: World, owner: Owner) -> None:
        self._world = world
        self._owner = owner

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """See `QueuePort`."""
        self._publish("call", keys, lane)

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """See `QueuePort`."""
        for ref in refs:
            self._world.invariants.on_log_published(ref)
        self._publish("log", refs)

    def publish_sweep(self, sent_at: datetime) -> None:
        """See `QueuePort`."""
        self._publish("sweep", [sent_at])

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """See `QueuePort`."""
        done: list[Published] = []
        for delivery in deliveries:
            try:
                is_heard = self._step(f"link of {self._world.named(delivery)}")
            except BrokerUnavailable:
                if not done:
                    raise
                break
            if self._world.refuses_link(delivery):
                done.append(Published(delivery.submission_id, "there is no such queue"))
                continue
            self._world.invariants.on_link_published(delivery)
            if not is_heard:
                break
            done.append(Published(delivery.submission_id))
        return done

    def _publish(self, kind: str, bodies: Iterable[Body], lane: Lane = Lane.CALL) -> None:
        listed = list(bodies)
        is_heard = self._step(f"{kind} {', '.join(map(self._world.named, listed))}")
        for body in listed if is_heard else listed[: self._world.rng.randint(0, len(listed))]:
            self._world.broker.put(body, lane)
        if not is_heard:
            raise BrokerUnavailable("no answer")

    def _step(self, what: str) -> bool:
        """Reach the broker; False if it takes the messages, or some, and the answer is lost."""
        scheduler, rng = self._world.scheduler, self._world.rng
        fate = self._world.faults.one_of(PUBLISH)
        scheduler.counts[fate or "publish"] += 1
        told = f"publishes {what}{f': {fate}' if fate else ''}"
        scheduler.tell(self._owner.name, told, idle=what.startswith("sweep") and not fate)
        if fate == "dies before publish":
            scheduler.die(self._owner, f"before publishing {what}")
        scheduler.wait(rng.uniform(0, 0.01), self._owner)
        if fate == "broker refuses" or self._world.broker.away_until > scheduler.now:
            scheduler.counts["publish in vain"] += 1
            raise BrokerUnavailable("away")
        return fate != "broker's answer lost"
