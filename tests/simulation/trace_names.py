"""What the trace calls things: short names that do not depend on ids, so that equal histories read alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import AttemptRef, CallKey, CallView
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.ledger import (
    Due,
    DueBatch,
    NewSubmission,
    Refused,
    Reserved,
    Settled,
    Submitted,
)
from callgate.domain.limits import Declaration, Learned
from callgate.domain.reports import CallFilter
from callgate.domain.unknown import SettleByHand, SettledByHand, UnknownBill, UnknownFilter

LOOKS = ("leases.renew", "leases.expire")
"""Statements that have something to say only if they found something."""


class Names:
    """A letter and when it was first seen: c1.2 is a call's second generation, a3 an attempt, s4 a submission."""

    def __init__(self, tables: MemoryTables, starts_at: datetime) -> None:
        self._tables = tables
        self._starts_at = starts_at
        self._names: dict[UUID, str] = {}

    def named(self, thing: object) -> str:
        """Name a row, or what tells which row is meant; attempts and submissions with their call, if it is known."""
        match thing:
            case CallKey():
                return f"{self._name(thing.call_id, 'c')}.{thing.generation}"
            case AttemptRef():
                return f"{self._name(thing.attempt_id, 'a')} of {self.named(thing.key)}"
            case UUID():
                return self._by_id(thing)
            case NewSubmission():
                return self._name(thing.submission_id, "s")
            case Delivery() | LinkOutcome():
                return self._by_id(thing.submission_id)
            case datetime():
                return f"of {self.seconds(thing)}"
            case BudgetFigures():
                figures = f"limit {thing.limit_nano_usd}, spent {thing.spent_nano_usd}"
                scope = f"{thing.org_id} {thing.scope} per {thing.window}"
                return (
                    f"budget {thing.budget_id} ({scope}): {figures}, held {thing.reserved_nano_usd}"
                )
            case SettleByHand() | SettledByHand():
                return self._by_id(thing.attempt_id)
            case Declaration():
                return f"{len(thing.rules)} limits"
            case Learned():
                return f"{thing.limit.amount} {thing.limit.measure} of {thing.model}"
            case UnknownFilter():
                return "unknown bills"
            case CallFilter():
                return f"{thing.state or 'all'} calls"
        inner = getattr(thing, "ref", None) or getattr(thing, "key", None)
        return str(thing) if inner is None else self.named(inner)

    def seconds(self, at: datetime | None) -> str:
        """A time of the ledger as the trace tells it."""
        return "no time" if at is None else f"{(at - self._starts_at).total_seconds():.3f} s"

    def asked(self, name: str, arguments: Sequence[Any]) -> str:
        """A statement and the rows it is about."""
        return f"{name} {', '.join(map(self.named, _things(arguments)))}".rstrip()

    def told(self, name: str, arguments: Sequence[Any], result: Any) -> tuple[str, bool]:
        """A statement with what came of it; True if it is idle: it looked for work and there was none."""
        outcomes = result.items if isinstance(result, DueBatch) else result
        outcomes = outcomes if isinstance(outcomes, list | tuple) else []
        came_to = ", ".join(map(self._outcome, outcomes))
        is_idle = not outcomes and (not _things(arguments) or name in LOOKS)
        return self.asked(name, arguments) + (f" -> {came_to}" if outcomes else ""), is_idle

    def _outcome(self, outcome: object) -> str:
        match outcome:
            case Submitted():
                return f"{outcome.outcome} {self.named(outcome.key)}, {outcome.state}"
            case CallView():
                return f"{self.named(outcome.key)} is {outcome.state}"
            case Delivery():
                return f"link of {self.named(outcome.submission_id)}"
            case Due():
                return f"{outcome.kind} {self.named(outcome.key)}"
            case Reserved():
                return f"reserved {self.named(outcome.ref)}"
            case Refused():
                return f"refused, {outcome.state}: {outcome.refusal}"
            case Settled():
                return f"{'settled' if outcome.is_applied else 'was settled'}, {outcome.state}"
            case SettledByHand():
                return f"{outcome.outcome} at {outcome.posted_nano_usd}"
            case UnknownBill():
                return f"{self.named(outcome.attempt_id)} posts {outcome.posted_nano_usd}"
            case CallKey() | str() | None:
                return self.named(outcome)
        return type(outcome).__name__.lower()

    def _by_id(self, row_id: UUID) -> str:
        attempt = self._tables.attempts.get(row_id)
        row = attempt or self._tables.submissions.get(row_id)
        name = self._name(row_id, "a" if attempt else "s")
        return name if row is None else f"{name} of {self.named(row.key)}"

    def _name(self, thing: UUID, prefix: str) -> str:
        return self._names.setdefault(thing, f"{prefix}{len(self._names) + 1}")


def _things(arguments: Sequence[Any]) -> Sequence[Any]:
    """The rows of a batch; of other statements their arguments."""
    return arguments[0] if arguments and isinstance(arguments[0], list) else arguments
