"""The rules of sums: folded sums and deltas together are what the rows say, at every step, and a seal stays true."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from callgate.domain.calls import AttemptStatus
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.unknown import is_bill_unknown

if TYPE_CHECKING:
    from tests.simulation.world import World

CHANGING = frozenset({"submit", "record", "settle", "settle_by_hand"})
FOLD_EVERY = 5
FOLD_MAX = 3
PROVE_EVERY = 20
ROWS_PER_STEP = 50
"""A look passes over all rows. So it is made at every step of a small life, and at fewer of one with many rows."""
QUARTER_S = 900
Name = tuple[datetime, str, str, str]
"""The quarter hour, the organisation, the kind and the outcome."""
Counted = dict[Name, list[int]]
"""Attempts, posted amount, amount of unknown bills, and collapsed submissions."""


class Sums:
    """Folds and proves as a worker does, between the statements of others, and counts by itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._steps = self._looked_at = 0

    def after(self, name: str) -> None:
        """Check what a statement did; now and then fold a few deltas, and prove."""
        self._steps += 1
        rows = len(self._tables.attempts) + len(self._tables.submissions)
        is_due = self._steps - self._looked_at >= rows // ROWS_PER_STEP
        if name in CHANGING and is_due:
            self._check()
        if self._steps % FOLD_EVERY == 0 and self._tables.deltas:
            self._world.ledger.fold_sums(limit=FOLD_MAX)
            if is_due:
                self._check()
        if self._steps % PROVE_EVERY == 0 and is_due:
            self._prove()

    def at_rest(self) -> None:
        """Fold everything."""
        while self._tables.deltas and self._world.ledger.fold_sums(limit=FOLD_MAX):
            self._check()
        self._check()
        self._prove()

    def _check(self) -> None:
        self._looked_at = self._steps
        rows, sums = self._by_rows(), self._by_sums()
        wrong = [name for name in rows.keys() | sums.keys() if rows[name] != sums[name]]
        said = "; ".join(f"{n}: rows {rows[n]}, sums {sums[n]}" for n in sorted(wrong))
        self._world.invariants.check("sums_equal_rows", not wrong, said)
        self._check_seals(rows)

    def _check_seals(self, rows: Counted) -> None:
        """What was proven is still so, unless a delta waits to open it again."""
        waiting = {delta.starts_at for delta in self._tables.deltas}
        now: dict[datetime, tuple[int, int]] = {}
        for (starts_at, *_), (attempts, posted, *_) in rows.items():
            before = now.get(starts_at, (0, 0))
            now[starts_at] = before[0] + attempts, before[1] + posted
        for starts_at, seal in self._tables.seals.items():
            found = now.get(starts_at, (0, 0))
            if starts_at not in waiting and seal != found:
                said = f"{starts_at} was sealed with {seal}, its rows say {found}"
                self._world.invariants.check("a_seal_is_true", False, said)

    def _prove(self) -> None:
        for day in self._world.ledger.sum_days():
            since = datetime.combine(day, datetime.min.time(), self._world.scheduler.time().tzinfo)
            proof = self._world.ledger.prove_sums(since, since + timedelta(days=1))
            self._world.invariants.check("sums_equal_rows", proof.is_clean, proof)
        self._world.scheduler.counts["quarter hour sealed"] += bool(self._tables.seals)

    def _by_rows(self) -> Counted:
        found: Counted = defaultdict(lambda: [0, 0, 0, 0])
        for row in self._tables.attempts.values():
            if row.status in (AttemptStatus.DISPATCHED, AttemptStatus.ANSWERED):
                continue
            org_id = self._tables.calls[row.key].org_id
            counted = found[_quarter(row.started_at), org_id, row.kind.value, row.status.value]
            cost = row.posted_nano_usd or 0
            is_unknown = is_bill_unknown(row.status, row.anomalies) and not row.settled_by_hand_at
            counted[0] += 1
            counted[1] += cost
            counted[2] += cost if is_unknown else 0
        for submission in self._tables.submissions.values():
            if submission.outcome not in (None, SubmitOutcome.CREATED):
                org_id = self._tables.calls[submission.key].org_id
                outcome = submission.outcome.value if submission.outcome else ""
                found[_quarter(submission.created_at), org_id, "collapsed", outcome][3] += 1
        return found

    def _by_sums(self) -> Counted:
        found: Counted = defaultdict(lambda: [0, 0, 0, 0])
        entries = [(at, key, m) for (at, key), m in self._tables.quarter_sums.items()]
        entries += [(d.starts_at, d.key, d.measures) for d in self._tables.deltas]
        for starts_at, key, measures in entries:
            counted = found[starts_at, key.org_id, key.kind, key.outcome]
            counted[0] += measures.attempts
            counted[1] += measures.posted_nano_usd
            counted[2] += measures.unknown_nano_usd
            counted[3] += measures.collapsed
        return found


def _quarter(at: datetime) -> datetime:
    return at - timedelta(seconds=at.timestamp() % QUARTER_S)
