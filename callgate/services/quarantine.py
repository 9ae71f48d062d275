"""Run calls that may have killed a worker, each in a process of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from callgate.domain.calls import CallKey, CallView, WaitReason
from callgate.domain.ledger import Defer
from callgate.services import call_lines
from callgate.services.claims import Claims
from callgate.services.delivery_result import Deferred, DeliveryResult
from callgate.services.reservations import Reservations, error_json
from callgate.services.retrying_ledger import RetryingLedger

QUARANTINED_CODE = "quarantined"
QUARANTINED = error_json(
    QUARANTINED_CODE, "it may have killed a worker; it waits for a process of its own"
)

RunQuarantined = Callable[[CallKey, str, float], Awaitable[DeliveryResult | Deferred]]
"""
Executes a quarantined call (`CallView.is_quarantined`) of an organisation in a process that runs no other call.

The number is how many seconds it may take once it could claim the call; after that its attempt has expired.
"""


class Quarantine:
    """Runs quarantined calls, or lets them wait."""

    def __init__(
        self,
        run_quarantined: RunQuarantined,
        *,
        ledger: RetryingLedger,
        claims: Claims,
        reservations: Reservations,
        on_locked: Callable[[CallKey], None],
    ) -> None:
        self._run_quarantined = run_quarantined
        self._ledger = ledger
        self._claims = claims
        self._reservations = reservations
        self._on_locked = on_locked

    async def run(self, view: CallView) -> DeliveryResult:
        """
        Run a call in a process of its own.

        If none is free, the call waits in the ledger. There it takes no slot, and no sweep counts it as lost.
        """
        expires_in_s = self._reservations.expires_in_s(view.call_type)
        result = await self._run_quarantined(view.key, view.org_id, expires_in_s)
        if isinstance(result, Deferred):
            await self._ledger.reserve(
                Defer(view.key, QUARANTINED, result.retry_after_s, WaitReason.QUARANTINE)
            )
            return DeliveryResult.DEFERRED
        if result is DeliveryResult.WORKER_LOST:
            # If the process died before its claim, this claim records the loss. If it died later, this claims nothing.
            outcome = await self._ledger.reserve(
                self._reservations.without_request(view.key, self._claims.new_id())
            )
            call_lines.say_refused(view, outcome)
        if result is DeliveryResult.LOCKED:
            self._on_locked(view.key)
        return result
