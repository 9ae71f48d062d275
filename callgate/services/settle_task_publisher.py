"""Hand answered attempts over to settlement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from callgate.domain.calls import AttemptRef
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from callgate.event_log import event_log

log = event_log(__name__)


class SettleTaskPublisher:
    """Publishes settle tasks. Without a broker it settles in this process."""

    def __init__(
        self,
        publish: Callable[[AttemptRef], Awaitable[None]],
        settle_here: Callable[[AttemptRef], Awaitable[object]],
    ) -> None:
        """
        Compose.

        Args:
            publish: Publishes the settle task of an attempt; raises BrokerUnavailable.
            settle_here: Settles an attempt in this process; raises LedgerUnavailable.
        """
        self._publish = publish
        self._settle_here = settle_here

    async def publish(self, ref: AttemptRef) -> None:
        """Have an attempt settled. Without broker and ledger, the due query will find it."""
        try:
            await self._publish(ref)
        except BrokerUnavailable as exc:
            log.warning(
                "settlement.done_in_place",
                call_id=str(ref.key.call_id),
                attempt_id=str(ref.attempt_id),
                reason=str(exc),
            )
            try:
                await self._settle_here(ref)
            except LedgerUnavailable as unavailable:
                log.warning("settlement.deferred", reason=str(unavailable))
