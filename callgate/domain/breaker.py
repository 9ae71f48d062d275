"""
Circuit breakers: when calls of a provider stop for a while. All workers share them.

    closed --3 failures in a row, half of 20 within a minute, a refused key or rate--> open --a probe succeeds--> closed
                                                        \\--a probe fails--> open, the next probe comes later

Each attempt passes two breakers of its provider, model and credential: the organisation's own, and the shared one. In
the shared breaker one organisation counts for two failures at most, so that it never stops the others alone. A shared
breaker that is closed and has seen no success for a minute lets a few attempts through; other calls wait for their
results. `reserve` asks both, `settle` reports to both. The Postgres functions follow these rules; the contract tests
run against both. Times are the ledger's, durations are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from callgate.domain.limits import IN_FLIGHT_FREE, IN_FLIGHT_START, LIMITED_CODE, MINUTE_S
from callgate.domain.provider import Billing, Failure
from callgate.domain.retry import NEVER_SENT_CODES

FAILURES_MAX = 3
"""The failures in a row that open a breaker, and the attempts that may be on trial at once."""
COUNTED_MAX = 2
"""How many of them may be one organisation's in the shared breaker."""
SHARE_OF = timedelta(seconds=60)
SHARE_MIN = 20
"""With fewer results within `SHARE_OF` only failures in a row count."""
PROVEN_FOR = timedelta(seconds=60)
"""How long one success lets any number of attempts through."""
TRIAL_LASTS = timedelta(seconds=10)
"""How long an attempt counts as on trial, so that a slow model does not delay other calls for minutes."""
PROBE_WAIT_S = 10.0
PROBE_WAIT_MAX_S = 600.0
BLOCKED_WAIT_S = 5.0
"""How long a key is blocked after a refusal for its rate, at least. Each probe that is refused too doubles it."""
RELEASED_MAX = 200
"""How many calls that wait for one breaker are released into the queue at once."""
REMEMBERED_FOR = timedelta(hours=1)
"""How long an organisation's breaker is kept after it closed: attempts that were made before may still fail."""
FORGOTTEN_AFTER = timedelta(days=7)
"""A breaker that was not used for this long is deleted, unless an operator opened it."""
UNAVAILABLE_CODE = "provider_unavailable"
"""Why a call waits for a breaker, and why it is rejected when it has waited too long."""

KEY_REFUSED_STATUSES = frozenset({401, 402, 403, 407})
KEY_REFUSED_CODES = frozenset({
    "authentication_failed", "permission_denied", "insufficient_quota", "missing_credentials", "endpoint_refused"
})  # fmt: skip
REQUEST_REFUSED_CODES = frozenset({"content_filtered"})
"""The provider answered the request itself, so it is alive, though the bill may be unknown."""

BROKEN_CODES = frozenset({"broken_off"})
"""The provider broke off its own answer, and named what that cost."""


class Health(StrEnum):
    """What an attempt says about the provider it was made for."""

    ALIVE = "alive"
    FAILED = "failed"
    KEY_REFUSED = "key_refused"
    LIMITED = "limited"
    """The provider refused it for its rate. It is alive, and takes no request for a while."""
    NEUTRAL = "neutral"
    """Nothing: the request itself was refused, or was not sent, or the worker was lost."""


def health_of(failure: Failure | None) -> Health:
    """What the end of an attempt says about its provider; None is a success."""
    if failure is None:
        return Health.ALIVE
    is_server_error = failure.status is not None and failure.status >= 500
    if failure.billing is Billing.BY_USAGE:
        is_broken = is_server_error or failure.code in BROKEN_CODES
        return Health.FAILED if is_broken else Health.ALIVE
    if failure.code in NEVER_SENT_CODES or failure.code in REQUEST_REFUSED_CODES:
        return Health.NEUTRAL
    if failure.code in KEY_REFUSED_CODES or failure.status in KEY_REFUSED_STATUSES:
        return Health.KEY_REFUSED
    if failure.code == LIMITED_CODE and failure.billing is Billing.UNBILLED:
        return Health.LIMITED
    if failure.billing is Billing.UNKNOWN or failure.status is None or is_server_error:
        return Health.FAILED
    return Health.NEUTRAL


def fails_often(results: Mapping[str, Sequence[bool]], *, is_shared: bool) -> bool:
    """
    Whether half of the results within `SHARE_OF`, or more, are failures.

    Args:
        results: By organisation: True for each attempt that failed, False for each that the provider answered.
        is_shared: For the shared breaker. The organisation with most failures does not count there.
    """
    most_first = sorted(results, key=lambda org_id: (-sum(results[org_id]), org_id))
    counted = [r for org_id in most_first[1 if is_shared else 0 :] for r in results[org_id]]
    return len(counted) >= SHARE_MIN and 2 * sum(counted) >= len(counted)


@dataclass(frozen=True, slots=True)
class Why:
    """The failure of an attempt, as a breaker keeps it."""

    code: str | None = None
    cause: str | None = None
    fingerprint: str | None = None


NO_FAILURE = Why()


class Admission(StrEnum):
    """What a breaker says to one attempt."""

    PASSED = "passed"
    ON_TRIAL = "on_trial"
    PROBE = "probe"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt under way that a breaker waits for."""

    attempt_id: UUID
    made_at: datetime
    org_id: str


@dataclass(frozen=True, slots=True)
class Breaker:
    """One row of `breaker`."""

    provider: str
    model: str
    credential: str
    """Whose key it is: an organisation, or empty for the provider's own."""
    org_id: str
    """Whose calls it guards: an organisation's; empty: the shared one."""
    changed_at: datetime
    """
    When it was opened or closed. Attempts made before do not change it.

    While open, only the probe's result changes it.
    """
    is_open: bool = False
    reason: str | None = None
    """The code of the failure that opened it, or an operator's words."""
    cause: str | None = None
    """What exactly failed; see `callgate.domain.causes`."""
    error_fingerprint: str | None = None
    """What calls that failed like that have in common."""
    failed_orgs: tuple[str, ...] = ()
    """The organisations of the failures since the last success, once for each failure that counts."""
    proven_at: datetime | None = None
    """About when the last success was settled."""
    probe_wait_s: float = PROBE_WAIT_S
    probe_at: datetime | None = None
    """While open: when the next probe may be made. None: not before an operator closes it."""
    turn_org: str = ""
    """The organisation of the last attempt while it was open or unproven: others come first."""
    trials: tuple[Trial, ...] = ()
    """Attempts under way that it waits for."""
    in_flight_max: int | None = None
    """How many attempts of a key without known limits may be under way; None: any number."""
    grown_at: datetime | None = None
    """When that number last changed."""

    @property
    def failures(self) -> int:
        """Failures since the last success, as far as they count."""
        return len(self.failed_orgs)

    @property
    def is_rate_limited(self) -> bool:
        """True if the key is blocked for its rate."""
        return self.is_open and self.reason == LIMITED_CODE

    def is_proven(self, now: datetime) -> bool:
        """True if an attempt has succeeded within the last minute."""
        return self.proven_at is not None and now - self.proven_at < PROVEN_FOR

    def is_forgettable(self, now: datetime) -> bool:
        """True if it was not used for long, and no operator opened it."""
        times = (self.changed_at, self.proven_at, self.probe_at)
        used_at = max(at for at in times if at is not None)
        is_by_hand = self.is_open and self.probe_at is None
        return not is_by_hand and not self.trials and now - used_at >= FORGOTTEN_AFTER

    def headroom(self, org_id: str, now: datetime) -> int:
        """How many attempts of an organisation it lets through now. Empty: of one that has none under way."""
        if self.is_open:
            return int(self.probe_at is not None and self.probe_at <= now and not self.trials)
        if self.org_id or self.is_proven(now):
            return RELEASED_MAX
        young = [t.org_id for t in self.trials if now - t.made_at < TRIAL_LASTS]
        counts = Counter((*self.failed_orgs, *young))
        mine = counts.pop(org_id, 0)
        return max(0, FAILURES_MAX - mine - sum(min(n, COUNTED_MAX) for n in counts.values()))

    def with_trial(self, trial: Trial) -> Breaker:
        """The breaker after it has let an attempt through."""
        if not self.is_open and (self.org_id or self.is_proven(trial.made_at)):
            return self
        return replace(self, trials=(*self.trials, trial), turn_org=trial.org_id)

    def freed(self, attempt_id: UUID) -> Breaker:
        """The breaker without the trial of an attempt that has ended."""
        left = tuple(trial for trial in self.trials if trial.attempt_id != attempt_id)
        return replace(self, trials=left)

    def heard(self, attempt_id: UUID, made_at: datetime, health: Health, now: datetime) -> Breaker:
        """The breaker after an attempt that does not count as a failure."""
        freed = self.freed(attempt_id)
        is_late = self.is_open and freed == self
        if is_late or made_at < self.changed_at:
            return freed
        if health is Health.ALIVE:
            closed = freed.closed(now) if self.is_open else freed
            return replace(closed, failed_orgs=(), proven_at=now)
        if not self.is_open:
            return freed
        wait_s = self.probe_wait_s * (1 if health is Health.NEUTRAL else 2)
        wait_s = min(wait_s, PROBE_WAIT_MAX_S)
        return replace(freed, probe_wait_s=wait_s, probe_at=now + timedelta(seconds=wait_s))

    def failed(
        self, org_id: str, health: Health, why: Why, now: datetime, *, often: bool = False
    ) -> Breaker:
        """
        The breaker after a failure of an organisation, up to the number of failures that count.

        Args:
            often: See `fails_often`.
        """
        counted_max = FAILURES_MAX if self.org_id else COUNTED_MAX
        counted = counted_max if health is Health.KEY_REFUSED else 1
        counted = min(counted, counted_max - self.failed_orgs.count(org_id))
        failed_orgs = (*self.failed_orgs, *[org_id] * counted)[:FAILURES_MAX]
        failed = replace(self, failed_orgs=failed_orgs)
        if len(failed_orgs) < FAILURES_MAX and not often:
            return failed
        # The organisation with most failures probes last.
        turn_org = min(failed_orgs, key=lambda org: (-failed_orgs.count(org), org))
        opened = failed.opened(why, now + timedelta(seconds=PROBE_WAIT_S), now)
        return replace(opened, turn_org=turn_org)

    def limited(
        self, attempt_id: UUID, made_at: datetime, blocked_for_s: float, now: datetime
    ) -> Breaker:
        """
        The breaker after the provider refused an attempt for its rate: it is open until the provider's time.

        Then one probe is made. If that is refused too, the wait doubles. An attempt that was sent before the key was
        blocked, or unblocked, tells nothing new; it may prolong the time.
        """
        freed = self.freed(attempt_id)
        is_by_hand = self.is_open and self.probe_at is None
        if is_by_hand or (not self.is_open and made_at < self.changed_at):
            return freed
        until = now + timedelta(seconds=blocked_for_s)
        if self.is_open and freed == self:
            return replace(freed, probe_at=max(until, self.probe_at or until))
        wait_s = min(PROBE_WAIT_MAX_S, 2 * self.probe_wait_s) if self.is_open else BLOCKED_WAIT_S
        probe_at = max(until, now + timedelta(seconds=wait_s))
        blocked = freed if self.is_open else freed.opened(Why(LIMITED_CODE), probe_at, now)
        return replace(
            blocked,
            reason=LIMITED_CODE,
            cause=None,
            error_fingerprint=None,
            probe_wait_s=wait_s,
            probe_at=probe_at,
            in_flight_max=blocked.in_flight_max if self.is_rate_limited else IN_FLIGHT_START,
            grown_at=blocked.grown_at if self.is_rate_limited else now,
        )

    def slowly_started(self, in_flight: int, now: datetime) -> Breaker:
        """
        The breaker of a key without known limits, before an attempt.

        It begins with few, also after a block, or a minute without a success. When all of them are under way, a
        minute has passed, and an attempt has succeeded since, it may have more.
        """
        is_old = self.grown_at is not None and now - self.grown_at > PROVEN_FOR
        is_idle = not self.is_proven(now) and (self.in_flight_max is None or is_old)
        if self.grown_at is None or is_idle:
            return replace(self, in_flight_max=IN_FLIGHT_START, grown_at=now)
        if self.in_flight_max is None or in_flight < self.in_flight_max:
            return self
        if now - self.grown_at > timedelta(seconds=2 * MINUTE_S):
            return replace(self, grown_at=now)  # not all were under way recently
        has_answered = self.proven_at is not None and self.proven_at > self.grown_at
        if now - self.grown_at < timedelta(seconds=MINUTE_S) or not has_answered:
            return self
        more = self.in_flight_max + IN_FLIGHT_START
        return replace(self, in_flight_max=None if more >= IN_FLIGHT_FREE else more, grown_at=now)

    def opened(self, why: Why, probe_at: datetime | None, now: datetime) -> Breaker:
        """The breaker, opened. Attempts under way no longer count."""
        return replace(
            self, is_open=True, reason=why.code, cause=why.cause, error_fingerprint=why.fingerprint,
            changed_at=now, trials=(), probe_wait_s=PROBE_WAIT_S, probe_at=probe_at,
        )  # fmt: skip

    def closed(self, now: datetime) -> Breaker:
        """The breaker, closed, without failures."""
        return replace(
            self, is_open=False, reason=None, cause=None, error_fingerprint=None, changed_at=now,
            failed_orgs=(), trials=(), probe_wait_s=PROBE_WAIT_S, probe_at=None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guard:
    """The two breakers that an attempt of an organisation has to pass."""

    shared: Breaker
    own: Breaker

    @property
    def refusing(self) -> Breaker:
        """The breaker that is shown as the reason of a wait."""
        return self.own if self.own.is_open and not self.shared.is_open else self.shared

    def headroom(self, now: datetime) -> int:
        """How many attempts both let through now."""
        org_id = self.own.org_id
        return min(self.own.headroom(org_id, now), self.shared.headroom(org_id, now))

    def admit(self, now: datetime, *, others_wait: bool) -> Admission:
        """
        Decide one attempt.

        Args:
            others_wait: Whether calls of other organisations wait that could be tried now.
        """
        if self.headroom(now) <= 0:
            return Admission.WAIT
        if self.shared.is_open and others_wait and self.shared.turn_org == self.own.org_id:
            return Admission.WAIT
        if self.shared.is_open or self.own.is_open:
            return Admission.PROBE
        return Admission.PASSED if self.shared.is_proven(now) else Admission.ON_TRIAL

    def with_trial(self, attempt_id: UUID, at: datetime) -> Guard:
        """Both after they have let an attempt through."""
        trial = Trial(attempt_id, at, self.own.org_id)
        return Guard(self.shared.with_trial(trial), self.own.with_trial(trial))

    def after(
        self, attempt_id: UUID, made_at: datetime, health: Health, why: Why, now: datetime, *,
        blocked_for_s: float = 0.0, often: tuple[bool, bool] = (False, False),
    ) -> Guard:  # fmt: skip
        """
        Both after an attempt has ended.

        A failure counts in both, or in neither: if one is open, the failure is known already.

        Args:
            why: Its failure.
            blocked_for_s: With LIMITED: how long the provider asked to be left alone.
            often: Whether half of the last results of each breaker are failures; see `fails_often`.
        """
        if health is Health.LIMITED:
            limited = self.shared.limited(attempt_id, made_at, blocked_for_s, now)
            return Guard(limited, self.own.freed(attempt_id))
        both = self.shared, self.own
        is_open = any(b.is_open for b in both)
        is_late = any(made_at < b.changed_at for b in both)
        if health in (Health.FAILED, Health.KEY_REFUSED) and not is_open and not is_late:
            org_id = self.own.org_id
            is_often = often if health is Health.FAILED else (False, False)
            return Guard(
                *(
                    b.freed(attempt_id).failed(org_id, health, why, now, often=is_one)
                    for b, is_one in zip(both, is_often, strict=True)
                )
            )
        return Guard(*(b.heard(attempt_id, made_at, health, now) for b in both))
