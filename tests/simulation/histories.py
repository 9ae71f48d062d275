"""
What breakers must be, told from what attempts came to.

Nothing here asks `callgate.domain.breaker`. A `History` is what one provider, model and credential has done so far, to
all organisations and to each of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow
from tests.simulation.provider import Heard

FAILURES_MAX = 3
COUNTED_MAX = 2
PROVEN_S, TRIAL_S, PROBE_S, PROBE_MAX_S = 60, 10, 10.0, 600.0
BLOCKED_S = 5.0
"""For how long a refusal for the rate blocks a key, at least."""
RELEASED_MAX = 200
OFTEN_S, OFTEN_MIN = 60, 20
"""Of so many attempts that began within so many seconds, half are too many failures."""


@dataclass
class Side:
    """One of the two that guard an attempt: the shared one, or the organisation's own."""

    changed_at: datetime
    is_open: bool = False
    is_by_hand: bool = False
    is_limited: bool = False
    """It is open because the provider takes no request for a while."""
    failed: list[str] = field(default_factory=list)
    """Whose the failures since the last answer were."""
    probe_at: datetime | None = None
    probe_s: float = PROBE_S
    on_trial: dict[UUID, tuple[datetime, str]] = field(default_factory=dict)
    """Attempts that it let through without knowing whether they will be answered: when, and whose."""

    def may_probe(self, now: datetime) -> bool:
        """True if it is open, and an attempt may ask whether the provider is back."""
        return not self.on_trial and self.probe_at is not None and self.probe_at <= now

    def change(self, now: datetime, *, is_open: bool, probe_at: datetime | None = None) -> None:
        """Open or close it: everything counts from here."""
        self.is_open, self.changed_at, self.probe_at = is_open, now, probe_at
        self.is_by_hand = is_open and probe_at is None
        self.is_limited = False
        self.probe_s = PROBE_S
        self.on_trial.clear()
        if not is_open:
            self.failed.clear()

    def limit(self, row: AttemptRow, for_s: float, now: datetime) -> None:
        """The provider refuses an attempt for its rate: it is left alone until its time, and longer after a probe."""
        was_trial = self.on_trial.pop(row.attempt_id, None) is not None
        is_late = not self.is_open and row.started_at < self.changed_at
        if self.is_by_hand or is_late:
            return
        until = now + timedelta(seconds=for_s)
        if self.is_open and not was_trial:
            self.probe_at = max(until, self.probe_at or until)
            return
        wait_s = min(2 * self.probe_s, PROBE_MAX_S) if self.is_open else BLOCKED_S
        probe_at = max(until, now + timedelta(seconds=wait_s))
        if not self.is_open:
            self.change(now, is_open=True, probe_at=probe_at)
        self.probe_s, self.probe_at, self.is_limited = wait_s, probe_at, True

    def count(self, org_id: str, most: int, *, is_key: bool, are_many: bool, now: datetime) -> None:
        """A failure; a refused key is as bad as an organisation's failures can be."""
        while self.failed.count(org_id) < most and len(self.failed) < FAILURES_MAX:
            self.failed.append(org_id)
            if not is_key:
                break
        if len(self.failed) == FAILURES_MAX or are_many:
            self.change(now, is_open=True, probe_at=now + timedelta(seconds=PROBE_S))

    def hear(self, row: AttemptRow, heard: Heard, now: datetime) -> bool:
        """An attempt ends that counts as no failure; return whether it was an answer that means something."""
        was_trial = self.on_trial.pop(row.attempt_id, None) is not None
        if row.started_at < self.changed_at or (self.is_open and not was_trial):
            return False
        if heard is Heard.ALIVE:
            if self.is_open:
                self.change(now, is_open=False)
            self.failed.clear()
            return True
        if self.is_open:
            self.probe_s = min(self.probe_s * (1 if heard is Heard.NOTHING else 2), PROBE_MAX_S)
            self.probe_at = now + timedelta(seconds=self.probe_s)
        return False


@dataclass
class History:
    """What is known of one provider, model and credential."""

    shared: Side
    own: dict[str, Side] = field(default_factory=dict)
    good_at: datetime | None = None
    turn: str = ""
    """Who was let through last while nobody knew."""
    blamed: set[str] = field(default_factory=set)
    """Organisations that have failed since the last answer, however often."""
    ended: dict[UUID, tuple[datetime, str, bool]] = field(default_factory=dict)
    """What each attempt says about the provider: when it began, whose it was, and whether it failed."""

    def own_of(self, org_id: str) -> Side:
        """The organisation's own side."""
        return self.own.setdefault(org_id, Side(self.shared.changed_at))

    def is_proven(self, now: datetime) -> bool:
        """True if it has answered within the last minute."""
        return self.good_at is not None and now - self.good_at < timedelta(seconds=PROVEN_S)

    def is_left_alone(self, org_id: str) -> bool:
        """True if only probes of the organisation are let through."""
        return self.shared.is_open or self.own_of(org_id).is_open

    def headroom(self, org_id: str, now: datetime) -> int:
        """How many calls of an organisation may be tried now; empty: of all together."""
        if org_id and self.own_of(org_id).is_open:
            return int(self.own_of(org_id).may_probe(now) and self._fits(org_id, now) > 0)
        return self._fits(org_id, now)

    def on_trial(self, now: datetime) -> Counter[str]:
        """By organisation: what was let through within ten seconds, and has not ended."""
        trials = self.shared.on_trial.values()
        return Counter(org for at, org in trials if now - at < timedelta(seconds=TRIAL_S))

    def _fits(self, org_id: str, now: datetime) -> int:
        if self.shared.is_open:
            return int(self.shared.may_probe(now))
        if self.is_proven(now):
            return RELEASED_MAX
        doubtful = self.on_trial(now) + Counter(self.shared.failed)
        others = sum(min(n, COUNTED_MAX) for org, n in doubtful.items() if org != org_id)
        return max(FAILURES_MAX - others - doubtful[org_id], 0)

    def tried(self, row: AttemptRow, org_id: str, now: datetime) -> None:
        """An attempt was let through."""
        if self.own_of(org_id).is_open:
            self.own_of(org_id).on_trial[row.attempt_id] = now, org_id
        if self.shared.is_open or not self.is_proven(now):
            self.shared.on_trial[row.attempt_id] = now, org_id
            self.turn = org_id

    def hear(
        self, row: AttemptRow, org_id: str, heard: Heard, now: datetime, *, blocked_for_s: float
    ) -> str:
        """An attempt ends; return the rule that says what becomes of the breakers."""
        own, shared = self.own_of(org_id), self.shared
        self.ended.pop(row.attempt_id, None)
        if heard in (Heard.ALIVE, Heard.FAILED):
            self.ended[row.attempt_id] = row.started_at, org_id, heard is Heard.FAILED
        if heard is Heard.LIMITED:
            shared.limit(row, blocked_for_s, now)
            own.on_trial.pop(row.attempt_id, None)
            return "a_refusal_for_the_rate_closes_the_key"
        is_known = shared.is_open or own.is_open
        is_late = row.started_at < max(own.changed_at, shared.changed_at)
        if heard in (Heard.FAILED, Heard.KEY_REFUSED) and not is_known and not is_late:
            return self._count(row, org_id, now, is_key=heard is Heard.KEY_REFUSED)
        own.hear(row, heard, now)
        if shared.hear(row, heard, now):
            self.good_at = now
            self.blamed.clear()
        if is_late:
            return "old_attempts_change_no_breaker"
        is_answer = heard is Heard.ALIVE
        return "an_answer_closes_a_breaker" if is_answer else "only_an_answer_closes_a_breaker"

    def _count(self, row: AttemptRow, org_id: str, now: datetime, *, is_key: bool) -> str:
        """A failure that both sides count."""
        own, shared = self.own_of(org_id), self.shared
        failing = set() if is_key else self._failing_often(now)
        of_one = Counter(failed for at, org, failed in self._since(own, now) if org == org_id)
        sides = (
            (shared, COUNTED_MAX, bool(failing)),
            (own, FAILURES_MAX, not is_key and _are_many(of_one)),
        )
        for side, most, are_many in sides:
            side.on_trial.pop(row.attempt_id, None)
            side.count(org_id, most, is_key=is_key, are_many=are_many, now=now)
        self.blamed |= {org_id, *failing}
        if shared.is_open:
            self.turn = min(shared.failed, key=lambda o: (-shared.failed.count(o), o))
        return "a_refused_key_opens_a_breaker" if is_key else "three_failures_open_a_breaker"

    def _failing_often(self, now: datetime) -> set[str]:
        """The organisations that fail, if half of what all but the worst of them sent does."""
        counts: dict[str, Counter[bool]] = {}
        for _, org, failed in self._since(self.shared, now):
            counts.setdefault(org, Counter())[failed] += 1
        worst = max(sorted(counts), key=lambda org: counts[org][True], default="")
        others = sum((n for org, n in counts.items() if org != worst), Counter[bool]())
        return {org for org, n in counts.items() if n[True]} if _are_many(others) else set()

    def _since(self, side: Side, now: datetime) -> list[tuple[datetime, str, bool]]:
        """What began within a minute, and since a side was changed."""
        since = now - timedelta(seconds=OFTEN_S)
        return [end for end in self.ended.values() if end[0] > since and end[0] >= side.changed_at]


def _are_many(counts: Counter[bool]) -> bool:
    return counts.total() >= OFTEN_MIN and counts[True] >= counts[False]
