"""
How often a call is made: as often as its limits allow, never more, and not less where nothing forbids it.

What an attempt came to is what it was when it was first settled; a late answer comes too late to keep a call from being
made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.domain.calls import AttemptKind, AttemptStatus, CallState
from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.ledger import Settle, Settled, SettleOutcome
from tests.simulation.provider import Heard

if TYPE_CHECKING:
    from tests.simulation.world import World

UNKNOWN_WAIT_MAX_S = 3_600.0
LOST, UNKNOWN, PAID, FREE = "lost", "unknown", "paid", "free"


class Limits:
    """What each attempt first came to, and when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._came_to: dict[UUID, tuple[str, datetime]] = {}

    def settled(self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome]) -> None:
        """Remember what attempts came to; a call that died of it had a reason."""
        now = self._world.scheduler.time()
        for settle, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Settled) or not outcome.is_applied:
                continue
            row = self._tables.attempts[settle.ref.attempt_id]
            if settle.expected_status is AttemptStatus.DISPATCHED:
                first = LOST
            elif row.status is AttemptStatus.UNKNOWN:
                first = UNKNOWN
            elif row.status is AttemptStatus.FAILED:
                first = PAID if self._is_paid(row) else FREE
            else:
                continue
            self._came_to.setdefault(row.attempt_id, (first, now))
            call = self._tables.calls[settle.ref.key]
            if call.state is CallState.DEAD and call.attempt_id == row.attempt_id:
                self._died(call, row)

    def repeated(self, call: CallRow, row: AttemptRow, before: Sequence[AttemptRow]) -> None:
        """A call is made again only if that can help, may be, and has not been done too often."""
        name, policy = self._world.named(call.key), self._world.catalogue.policy(call.call_type)
        check = self._world.invariants.check
        tried = [a for a in before if not self._is_uncounted(a)]
        said = f"{name}: attempt {call.attempt}"
        check("no_repeat_without_a_reason", len(tried) < policy.attempts_max, said)
        unknown = [a for a in before if self._first(a) == UNKNOWN]
        paid = [a for a in before if self._first(a) == PAID]
        said = f"{name} is made again after {len(unknown)} unknown and {len(paid)} paid attempts"
        is_bounded = len(unknown) < policy.unknown_attempts_max
        check("unknown_attempts_are_few", is_bounded or policy.on_unknown == "dead", said)
        check("paid_failures_are_few", len(paid) < policy.paid_failures_max, said)
        for a in before:
            said = f"{name} after {self._world.named(a.attempt_id)}: {a.status}, {a.error}"
            if self._first(a) in (LOST, UNKNOWN):
                check("no_repeat_without_a_reason", policy.on_unknown == "retry", said)
            else:
                # A refused key is no fault of the call's: but for the first, calls that meet it wait.
                is_key = self._world.heard.get(a.attempt_id) is Heard.KEY_REFUSED
                can_pass = json.loads(a.error or "{}").get("retryable") or is_key
                check("no_repeat_without_a_reason", can_pass or self._is_uncounted(a), said)
        self._has_waited(row, unknown, policy)

    def _has_waited(
        self, row: AttemptRow, unknown: Sequence[AttemptRow], policy: CallTypePolicy
    ) -> None:
        """Long, and twice as long each time: an outage should not use up the few attempts there are."""
        for n, last in enumerate(unknown):
            wait_s = min(policy.unknown_wait_s * 2.0**n, UNKNOWN_WAIT_MAX_S)
            posted_at = self._came_to[last.attempt_id][1]
            is_far = row.started_at >= posted_at + timedelta(seconds=wait_s)
            said = f"{self._world.named(row.attempt_id)} comes within {wait_s} s of its last"
            self._world.invariants.check("unknown_attempts_are_far_apart", is_far, said)

    def _died(self, call: CallRow, last: AttemptRow) -> None:
        """A call is given up only when a limit is reached, or nothing can help."""
        policy, rows = (
            self._world.catalogue.policy(call.call_type),
            self._tables.attempts_of[call.key],
        )
        lost = sum(self._first(a) == LOST for a in rows)
        left_open = sum(
            a.status is AttemptStatus.UNKNOWN and a.finished_at is not None for a in rows
        )
        paid = sum(a.status is AttemptStatus.FAILED and self._is_paid(a) for a in rows)
        tried = [a for a in rows if not self._is_uncounted(a)]
        is_open = self._first(last) in (LOST, UNKNOWN)
        can_help = bool(json.loads(last.error or "{}").get("retryable"))
        has_reason = (
            (not can_help and not self._is_uncounted(last))
            or (is_open and policy.on_unknown == "dead")
            or lost >= policy.worker_losses_max
            or left_open >= policy.unknown_attempts_max
            or paid >= policy.paid_failures_max
            or len(tried) >= policy.attempts_max
        )
        has_reason = has_reason and (is_open or not self._was_refused_for_its_rate(last))
        counted = f"{len(tried)} attempts, {lost} lost, {left_open} unknown, {paid} paid"
        said = f"{self._world.named(call.key)} is dead after {counted}: {last.error}"
        self._world.invariants.check("no_call_is_given_up_too_soon", has_reason, said)

    def _first(self, row: AttemptRow) -> str | None:
        return self._came_to.get(row.attempt_id, (None, None))[0]

    def _is_paid(self, row: AttemptRow) -> bool:
        """The provider has answered, and charges for it."""
        bill = self._world.bills.get(row.attempt_id)
        heard = self._world.heard.get(row.attempt_id)
        return bill is not None and not bill.is_free and heard is Heard.ALIVE

    def _is_uncounted(self, row: AttemptRow) -> bool:
        """It cost nothing, and what it met was not the call's fault."""
        return self._is_free_probe(row) or self._was_refused_for_its_rate(row)

    def _was_refused_for_its_rate(self, row: AttemptRow) -> bool:
        is_limited = self._world.heard.get(row.attempt_id) is Heard.LIMITED
        return is_limited and row.status is AttemptStatus.FAILED

    def _is_free_probe(self, row: AttemptRow) -> bool:
        """A probe that cost nothing, and failed for a reason that is none of the call's."""
        heard = self._world.heard.get(row.attempt_id, Heard.NOTHING)
        is_free = row.kind is AttemptKind.PROBE and not row.posted_nano_usd
        can_help = bool(json.loads(row.error or "{}").get("retryable"))
        return (
            is_free
            and row.status is AttemptStatus.FAILED
            and (can_help or heard is Heard.KEY_REFUSED)
        )
