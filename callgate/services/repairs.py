"""Finds the answers that are to be repaired."""

from __future__ import annotations

from callgate.domain.calls import AttemptRef, CallView
from callgate.domain.catalogue import Catalogue
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.repairs import Broken
from callgate.event_log import event_log
from callgate.services.retrying_ledger import RetryingLedger

log = event_log(__name__)


class Repairs:
    """Reads broken answers of calls that are about to be claimed."""

    def __init__(self, ledger: RetryingLedger, catalogue: Catalogue) -> None:
        self._ledger = ledger
        self._catalogue = catalogue

    def answer_bytes(self, view: CallView) -> int:
        """The size of the answer that may have to be repaired; 0 if there is none."""
        policy = self._catalogue.policy(view.call_type)
        if view.broken is None or view.repairs >= policy.repairs_max:
            return 0
        return view.broken.reply_bytes

    async def broken(self, view: CallView) -> Broken | None:
        """
        The newest failed attempt that has a reply, if the call may have a repair.

        Raises:
            LedgerUnavailable: As any read.
        """
        if view.broken is None or not self.answer_bytes(view):
            return None
        read = await self._ledger.read_answer(AttemptRef(view.key, view.broken.attempt_id))
        attempt = None if read is None else read.last
        if attempt is None or attempt.reply is None or attempt.error is None:
            return None
        try:
            return Broken(Failure.from_json(attempt.error), ProviderReply.from_json(attempt.reply))
        except Exception as exc:
            # Its words may quote the answer. Without it the call is tried again as it is.
            reason = type(exc).__name__
            log.error(
                "broken_answer.not_read",
                org_id=view.org_id,
                call_id=str(view.key.call_id),
                reason=reason,
            )
            return None
