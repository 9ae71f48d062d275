"""
When a provider is left alone for a while: one breaker per provider, model and credential, shared by all workers.

    closed --3 failures in a row, or a refused key--> open --a probe succeeds--> closed
                                                        \\--a probe fails--> open, the next probe comes later

A closed breaker that has seen no success for a minute lets a few attempts through; other calls wait for what those
bring. `reserve` asks a breaker, `settle` tells it. The Postgres functions follow these rules; one contract suite holds
them together. Times are the ledger's own, durations are seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from callgate.domain.retry import NEVER_SENT_CODES, Billing, Failure

FAILURES_MAX = 3
"""So many failures in a row open a breaker; so many attempts may be on trial at once."""
PROVEN_FOR = timedelta(seconds=60)
"""How long one success lets any number of attempts through."""
TRIAL_LASTS = timedelta(seconds=10)
"""How long an attempt counts as on trial: a slow model must not hold up other calls for minutes."""
PROBE_WAIT_S = 10.0
PROBE_WAIT_MAX_S = 600.0
RELEASED_MAX = 200
"""So many waiting calls of one breaker are in the queue at once."""
UNAVAILABLE_CODE = "provider_unavailable"
"""Why a call waits for a breaker, and why it is rejected when it has waited too long."""

KEY_REFUSED_STATUSES = frozenset({401, 402, 403, 407})
KEY_REFUSED_CODES = frozenset(
    {"authentication_failed", "permission_denied", "insufficient_quota", "missing_credentials"}
)
REQUEST_REFUSED_CODES = frozenset({"content_filtered"})
"""The provider judged the request, so it is alive, though the bill may be unknown."""

BROKEN_CODES = frozenset({"broken_off"})
"""The provider broke off its own answer, and named what that cost."""


class Health(StrEnum):
    """What an attempt says about the provider it was made for."""

    ALIVE = "alive"
    FAILED = "failed"
    KEY_REFUSED = "key_refused"
    NEUTRAL = "neutral"
    """Nothing: the request itself was refused, or none was tried, or the worker was lost."""


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
    if failure.billing is Billing.UNKNOWN or failure.status is None or is_server_error:
        return Health.FAILED
    return Health.NEUTRAL


class Admission(StrEnum):
    """What a breaker says to one attempt."""

    PASSED = "passed"
    ON_TRIAL = "on_trial"
    PROBE = "probe"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One row of `breaker`."""

    provider: str
    model: str
    credential: str
    """Whose key it is: an organisation, or empty for the provider's own."""
    changed_at: datetime
    """When it was opened or closed. Attempts made before do not change it, and an open one hears its probe only."""
    is_open: bool = False
    reason: str | None = None
    """The code of the failure that opened it, or an operator's words."""
    failures: int = 0
    """Failures since the last success."""
    proven_at: datetime | None = None
    """About when the last success was settled."""
    probe_wait_s: float = PROBE_WAIT_S
    probe_at: datetime | None = None
    """While open: when the next probe may be made. None: not before an operator closes it."""
    probed_org: str = ""
    """Whose call the last probe was: other organisations come first."""
    trials: tuple[tuple[UUID, datetime], ...] = ()
    """Attempts under way that it waits for, each with the time it was made."""

    def admit(
        self, org_id: str, now: datetime, *, others_wait: bool, fresher_wait: bool = False
    ) -> Admission:
        """
        Decide one attempt.

        Args:
            others_wait: Whether calls of other organisations, with as few attempts, wait for this breaker.
            fresher_wait: Whether calls with fewer attempts do: a probe may be the last attempt that a call has.
        """
        if self.is_open:
            is_its_turn = not fresher_wait and (self.probed_org != org_id or not others_wait)
            return Admission.PROBE if is_its_turn and self._probe_is_due(now) else Admission.WAIT
        if self._is_proven(now):
            return Admission.PASSED
        return Admission.ON_TRIAL if self._trials_left(now) > 0 else Admission.WAIT

    def room(self, now: datetime) -> int:
        """How many waiting calls may be in the queue for it."""
        if self.is_open:
            return int(self._probe_is_due(now))
        return RELEASED_MAX if self._is_proven(now) else self._trials_left(now)

    def with_trial(
        self, admission: Admission, attempt_id: UUID, org_id: str, at: datetime
    ) -> Breaker:
        """The breaker once it has let an attempt through."""
        if admission is Admission.PASSED:
            return self
        probed_org = org_id if admission is Admission.PROBE else self.probed_org
        return replace(self, trials=(*self.trials, (attempt_id, at)), probed_org=probed_org)

    def after(
        self, attempt_id: UUID, made_at: datetime, health: Health, code: str | None, now: datetime
    ) -> Breaker:
        """The breaker once an attempt has ended; `code` is its failure's."""
        left = tuple(trial for trial in self.trials if trial[0] != attempt_id)
        freed = replace(self, trials=left)
        is_late = self.is_open and left == self.trials
        if is_late or made_at < self.changed_at:
            return freed
        if health is Health.ALIVE:
            return replace(freed.closed(now) if self.is_open else freed, failures=0, proven_at=now)
        has_failed = health in (Health.FAILED, Health.KEY_REFUSED)
        if self.is_open:
            return freed._probed(has_failed, now)
        if not has_failed:
            return freed
        failures = self.failures + 1
        if health is Health.FAILED and failures < FAILURES_MAX:
            return replace(freed, failures=failures)
        probe_at = now + timedelta(seconds=PROBE_WAIT_S)
        return replace(freed.opened(code, probe_at, now), failures=failures)

    def opened(self, reason: str | None, probe_at: datetime | None, now: datetime) -> Breaker:
        """The breaker, opened; what is under way no longer counts."""
        return replace(
            self, is_open=True, reason=reason, changed_at=now, trials=(),
            probe_wait_s=PROBE_WAIT_S, probe_at=probe_at,
        )  # fmt: skip

    def closed(self, now: datetime) -> Breaker:
        """The breaker, closed, with nothing against it."""
        return replace(
            self, is_open=False, reason=None, changed_at=now, failures=0, trials=(),
            probe_wait_s=PROBE_WAIT_S, probe_at=None,
        )  # fmt: skip

    def _probe_is_due(self, now: datetime) -> bool:
        return self.probe_at is not None and self.probe_at <= now and not self.trials

    def _is_proven(self, now: datetime) -> bool:
        return self.proven_at is not None and now - self.proven_at < PROVEN_FOR

    def _trials_left(self, now: datetime) -> int:
        young = sum(now - made_at < TRIAL_LASTS for _, made_at in self.trials)
        return max(0, FAILURES_MAX - self.failures - young)

    def _probed(self, has_failed: bool, now: datetime) -> Breaker:
        wait_s = self.probe_wait_s * 2 if has_failed else self.probe_wait_s
        wait_s = min(wait_s, PROBE_WAIT_MAX_S)
        return replace(self, probe_wait_s=wait_s, probe_at=now + timedelta(seconds=wait_s))


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker that was opened or closed."""

    provider: str
    model: str
    credential: str
    is_open: bool
    reason: str | None

    @classmethod
    def from_json(cls, text: str) -> BreakerChange:
        """Read what the settle function wrote."""
        return cls(**json.loads(text))


def unavailable_json(provider: str, model: str, reason: str | None) -> str:
    """The error of a call that waits for a breaker, as stored in `llm_call.error`."""
    why = f"is left alone: {reason}" if reason else "has few attempts on trial"
    return json.dumps({"code": UNAVAILABLE_CODE, "message": f"{provider}/{model} {why}"})
