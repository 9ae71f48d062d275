"""Remove the bodies of ended calls when an operator asks: plan, purge, and say what had to stay."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.calls import CallState
from callgate.domain.catalogue import DAY_S, Retention
from callgate.domain.errors import OrgNotFound
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.reports import CallFilter
from callgate.domain.retention import BodyAges, Purged

PURGE_BATCH_MAX = 500
"""Calls per transaction: locks are held for milliseconds."""
PURGE_BATCHES_MAX = 200
"""Batches per run."""
COUNTED_MAX = 10_000
"""Calls that a plan counts at most, and open calls of an organisation."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """Calls of one organisation that still have their bodies."""

    with_bodies: int
    open: int
    ended: int
    """
    Ended calls that are old enough to be purged.

    A purge leaves the ones that are in use, have a link to deliver, or an attempt that still has to be settled.
    """


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What a purge would remove, before anything is removed."""

    ages: BodyAges
    org_id: str | None
    """None: the calls of every organisation."""
    found: Purged
    remaining: Remaining | None
    """None if every organisation is purged."""
    dead_letters: int = 0
    """How many of the calls are dead letters, to `COUNTED_MAX`: they cannot be redriven after that."""

    @property
    def is_complete(self) -> bool:
        """False if there may be more than was counted."""
        return max(self.found.calls, self.found.unprocessable_messages) < COUNTED_MAX


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge removed, and what it left."""

    purged: Purged
    remaining: Remaining | None

    @property
    def is_complete(self) -> bool:
        """False if bodies of the organisation are old enough and could not be removed yet."""
        return self.remaining is None or not self.remaining.ended


class PurgeService:
    """Purges on request; `RetentionService` purges on schedule."""

    def __init__(
        self, retention: RetentionPort, operations: OperationsPort, declared: Retention
    ) -> None:
        self._retention = retention
        self._operations = operations
        self._declared = declared

    def ages(self, org_id: str | None = None, *, days: int | None = None) -> BodyAges:
        """How old bodies may become: `days`, else what the catalogue declares; None: every organisation's."""
        ages = self._declared.body_ages() if days is None else BodyAges(default_s=days * DAY_S)
        return ages if org_id is None else ages.only(org_id)

    def plan(self, ages: BodyAges, org_id: str | None = None) -> PurgePlan:
        """
        Count what a purge would remove. What stays is counted first: a login that may not count must not purge.

        Raises:
            OrgNotFound: The ledger has no call of this organisation: its name is perhaps misspelt.
            LedgerUnavailable
        """
        remaining = self._remaining(ages, org_id)
        found = self._retention.purge(ages, limit=COUNTED_MAX, dry_run=True)
        if org_id is not None and found == Purged():
            self._require_org(org_id)
        dead = self._retention.old_dead_letters(ages, limit=COUNTED_MAX) if found.calls else 0
        return PurgePlan(ages, org_id, found, remaining, dead)

    def carry_out(self, plan: PurgePlan) -> PurgeReport:
        """
        Purge everything that is old enough, in batches.

        Raises:
            LedgerUnavailable: Earlier batches stay purged.
        """
        if plan.found == Purged():
            return PurgeReport(Purged(), plan.remaining)
        total = Purged()
        while (part := purge_batches(self._retention, plan.ages)) != Purged():
            total += part
        return PurgeReport(total, self._remaining(plan.ages, plan.org_id))

    def _require_org(self, org_id: str) -> None:
        if not self._operations.calls(CallFilter(org_id), limit=1):
            raise OrgNotFound(f"the ledger has no call of organisation {org_id!r}")

    def _remaining(self, ages: BodyAges, org_id: str | None) -> Remaining | None:
        if org_id is None:
            return None
        ended = self._retention.old_calls_with_bodies(org_id, ages.by_org_s[org_id])
        with_bodies = self._retention.calls_with_bodies(org_id)
        open_calls = sum(
            len(self._operations.calls(CallFilter(org_id, state), limit=COUNTED_MAX))
            for state in CallState
            if state.is_open
        )
        return Remaining(with_bodies, open_calls, ended)


def purge_batches(retention: RetentionPort, ages: BodyAges) -> Purged:
    """
    Remove the bodies of calls that are too old, up to `PURGE_BATCHES_MAX` batches.

    Raises:
        LedgerUnavailable: Earlier batches stay purged.
    """
    total = Purged()
    if ages.is_unlimited:
        return total
    for _ in range(PURGE_BATCHES_MAX):
        batch = retention.purge(ages, limit=PURGE_BATCH_MAX)
        total += batch
        if max(batch.calls, batch.unprocessable_messages) < PURGE_BATCH_MAX:
            break
    return total
