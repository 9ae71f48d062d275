"""The queue of a memory client: what was published and is not done yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.delivery import Delivery, Published


class MemoryQueue:
    """`QueuePort` whose messages stay in this process."""

    def __init__(self) -> None:
        self.express: deque[CallKey] = deque()
        self.calls: deque[CallKey] = deque()
        self.settle_tasks: deque[AttemptRef] = deque()
        self.links: deque[Delivery] = deque()

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """Keep call tasks."""
        (self.express if lane is Lane.EXPRESS else self.calls).extend(keys)

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Keep settle tasks."""
        self.settle_tasks.extend(refs)

    def publish_sweep(self, sent_at: datetime) -> None:
        """Do nothing: no message is lost here."""

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """Keep links."""
        self.links.extend(deliveries)
        return [Published(delivery.submission_id) for delivery in deliveries]

    def next_call(self) -> CallKey | None:
        """Take the next call: the express lane comes first."""
        lane = self.express or self.calls
        return lane.popleft() if lane else None
