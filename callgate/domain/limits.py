"""
Provider limits: how much of a key may be used, and what is known about that.

A *limit* bounds one measure of a key (provider, model, credential) within a window, for example 500 requests per
minute. It is declared in the catalogue, learned from a provider's headers, or observed after a refusal. All limits of
a key hold at once, so the lowest one decides.

A limit is a token bucket: `capacity + refill x (window + slack) <= amount`. So a provider that counts in a sliding
window never sees more than the amount. The capacity is a small share of the amount, or the largest recent request,
because a request must fit into it. A request of more than half the amount needs a whole window in which nothing was
used.

The Postgres functions follow these rules; the contract tests run against both. Times are the ledger's, durations are
seconds, amounts are whole units of the measure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from callgate.domain.concurrency import ConcurrencyRule
from callgate.domain.open_calls import OPEN_CALLS_MAX

MINUTE_S = 60
DAY_S = 86_400
BURST_SHARE = 0.03
"""The capacity of a bucket whose window is short, as a share of its amount."""
LONG_BURST_SHARE = 0.5
"""The same for a window of an hour or more: a batch must not be spread over a day."""
LONG_WINDOW_S = 3_600
SLACK_S = 1.0
"""How much later one request may reach a provider than another that was admitted with it."""
LEARNED_FOR = timedelta(days=1)
"""A learned limit that no response has confirmed for this long is ignored."""
OBSERVED_FOR = timedelta(minutes=10)
"""
The observed limit of a key is ignored when the key was not blocked again for this long and then not used for a minute.

While calls wait for it, it goes on rising: without it, all of them would come at once.
"""
IN_FLIGHT_START = 16
"""
With how many attempts under way a key without known limits begins. It gets as many more after each minute in which all
were under way.

When such a key meets its limit, what is under way is refused: at first these sixteen, later the share of the attempts
that exceeds the minute before, which is as many.
"""
OBSERVED_MIN = 6
"""Requests per minute with which an unblocked key starts, at least."""
IN_FLIGHT_FREE = 1_024
"""From here on the attempts under way of such a key are not counted any more."""
LIMITED_CODE = "rate_limited"
"""Why a call waits for a limit. Also the failure of an attempt that the provider refused for its rate."""
OVERSIZED_CODE = "exceeds_provider_limit"
"""Why a call is rejected that needs more than a whole limit."""


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOKENS = "tokens"
    """Input and output tokens together."""
    CONCURRENCY = "concurrency"
    """Attempts under way at the same time. It has no window."""


def measured(measure: Measure, window_s: int) -> str:
    """A measure and its window in words, for example `input tokens per minute`."""
    window = {0: "", MINUTE_S: " per minute", DAY_S: " per day"}
    return measure.value.replace("_", " ") + window.get(window_s, f" per {window_s} s")


class Source(StrEnum):
    """How a limit is known."""

    DECLARED = "declared"
    LEARNED = "learned"
    """The provider named it in a response."""
    OBSERVED = "observed"
    """Half the rate that the provider accepted before it refused, rising by that each minute."""


@dataclass(frozen=True, slots=True)
class LearnedLimit:
    """A limit that a provider named in its response."""

    measure: Measure
    window_s: float
    amount: int
    """The whole limit."""
    remaining: int | None = None
    """What is left of it now; None if the provider did not say."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned limit, and the key that it is one of."""

    provider: str
    model: str
    credential: str
    limit: LearnedLimit


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A limit as it is declared: for which keys, and how much."""

    provider: str
    model: str
    """A pattern with `*` and `?`."""
    credential: str
    """Empty: the provider's own key. `*`: each organisation's own key. Else that organisation's key."""
    is_shared: bool
    """Whether the models that match share one bucket. Otherwise each has its own."""
    measure: Measure
    window_s: int
    """0 for concurrency."""
    amount: int
    counts_used: bool
    """Whether the provider counts the tokens that were used. Otherwise it counts those that were asked for."""

    def applies_to(self, provider: str, model: str, credential: str) -> bool:
        """True if it limits this key."""
        is_key = self.credential == credential or (self.credential == "*" and credential != "")
        return self.provider == provider and is_key and fnmatchcase(model, self.model)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a worker's catalogue says about limits."""

    rules: tuple[LimitRule, ...] = ()
    cautious: tuple[str, ...] = ()
    """Providers that are not declared unlimited: their keys without rules begin with few attempts under way."""
    open_calls_max: int = OPEN_CALLS_MAX
    """How many calls of one organisation may be open."""
    counting_used: tuple[str, ...] = ()
    """Providers whose limits count the tokens that were used; also the limits that they name themselves."""
    concurrency: tuple[ConcurrencyRule, ...] = ()
    """How many calls of an organisation may run at a time."""

    @property
    def digest(self) -> str:
        """The same for workers that declare the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The declaration as the ledger stores it."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Need:
    """What one attempt takes from the limits of its key."""

    input_tokens: int
    """The upper bound that its hold was made with."""
    output_tokens: int

    def of(self, measure: Measure) -> int:
        """The units of one measure."""
        match measure:
            case Measure.INPUT_TOKENS:
                return self.input_tokens
            case Measure.OUTPUT_TOKENS:
                return self.output_tokens
            case Measure.TOKENS:
                return self.input_tokens + self.output_tokens
            case _:
                return 1


@dataclass(frozen=True, slots=True)
class Limit:
    """One row of `flow_limit`: a bucket and how full it is."""

    limit_id: int
    provider: str
    model: str
    """A model; or a pattern, if it is one bucket of several models."""
    credential: str
    source: Source
    measure: Measure
    window_s: int
    amount: int
    is_shared: bool
    counts_used: bool
    level: float
    """What may be used at `leveled_at`; negative after a request of more than half the amount."""
    leveled_at: datetime
    changed_at: datetime
    """When the amount was last declared, confirmed or observed."""
    largest: int = 0
    """The largest recent request that made the capacity larger; 0: none."""
    largest_at: datetime | None = None
    granted_at: datetime | None = None
    """When something was last taken."""
    rise_per_s: float = 0.0
    """How fast an observed amount rises from the time the block ends, `changed_at`."""

    @property
    def name(self) -> str:
        """Its name for operators, for example `600 requests per minute of openai/gpt-4o*`."""
        what = measured(self.measure, self.window_s)
        return f"{self.amount} {what} of {self.provider}/{self.model}"

    @property
    def span_s(self) -> float:
        """The window, and how much requests may be late within it."""
        return self.window_s + SLACK_S

    @property
    def burst(self) -> float:
        """The capacity without large requests."""
        share = LONG_BURST_SHARE if self.window_s >= LONG_WINDOW_S else BURST_SHARE
        return min(self.amount / 2, max(1.0, self.amount * share))

    @property
    def capacity(self) -> float:
        """The most that may be used at once."""
        return min(self.amount / 2, max(self.burst, self.largest))

    @property
    def refill_per_s(self) -> float:
        """How fast it fills. Requests are whole, so one more of them fits into each window."""
        whole = 1 if self.measure is Measure.REQUESTS else 0
        return (self.amount - self.capacity + whole) / self.span_s

    def is_current(self, now: datetime) -> bool:
        """False for what was learned or observed long ago, and for what was observed also not in use."""
        kept = {Source.LEARNED: LEARNED_FOR, Source.OBSERVED: OBSERVED_FOR}.get(self.source)
        is_in_use = self.source is Source.OBSERVED and not self.was_unused(now)
        return kept is None or now - self.changed_at < kept or is_in_use

    def applies_to(self, provider: str, model: str, credential: str) -> bool:
        """True if it limits this key."""
        matches = fnmatchcase(model, self.model) if self.is_shared else model == self.model
        return (self.provider, self.credential) == (provider, credential) and matches

    def at(self, now: datetime) -> Limit:
        """The limit as it is now: filled since, and with its usual capacity if no large request came recently."""
        if self.source is Source.OBSERVED:
            age_s = max(0.0, (now - self.changed_at).total_seconds())
            return replace(self, amount=max(1, int(self.rise_per_s * (MINUTE_S + age_s))))._filled(
                now
            )
        return self._filled(now)

    def _filled(self, now: datetime) -> Limit:
        passed_s = max(0.0, (now - self.leveled_at).total_seconds())
        level = min(self.capacity, self.level + self.refill_per_s * passed_s)
        filled = replace(self, level=level, leveled_at=max(now, self.leveled_at))
        if self.largest_at and now - self.largest_at > 2 * timedelta(seconds=self.span_s):
            # It may now fill faster. Without this, one window could see the large capacity and the fast refill.
            level -= self.capacity - self.burst
            return replace(filled, level=level, largest=0, largest_at=None)
        return filled

    def wanting(self, units: int, now: datetime) -> Limit:
        """
        The limit, large enough for a request of half the amount at most.

        If it was unused for a whole window, the bucket is full at once.
        """
        if self.capacity >= min(units, self.amount / 2):
            return replace(self, largest_at=now) if units > self.burst and self.largest else self
        larger = replace(self, largest=units, largest_at=now)
        return replace(larger, level=larger.capacity) if self.was_unused(now) else larger

    def was_unused(self, now: datetime) -> bool:
        """True if nothing was taken within the last window."""
        return self.granted_at is None or (now - self.granted_at).total_seconds() >= self.span_s

    def wait_s(self, units: int, now: datetime) -> float:
        """After how many seconds a request fits; 0: now. Only for one that is not larger than the amount."""
        if units > self.amount / 2:
            if self.granted_at is None:
                return 0.0
            return max(0.0, self.span_s - (now - self.granted_at).total_seconds())
        return max(0.0, (units - self.level) / self.refill_per_s)

    def taken(self, units: int, now: datetime) -> Limit:
        """The limit after a request has passed."""
        before = self.capacity if units > self.amount / 2 else self.level
        return replace(self, level=before - units, granted_at=now)

    def given_back(self, units: int) -> Limit:
        """The limit after an answer used fewer tokens than were taken. It never rises above its capacity."""
        return replace(self, level=min(self.capacity, self.level + units))


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """Why a call does not fit into the limits of its key."""

    limit: str
    """The limit's name."""
    wait_s: float | None
    """The earliest time; None: it never fits."""

    def to_json(self) -> str:
        """The error of the call, as stored in `llm_call.error`."""
        if self.wait_s is None:
            return json.dumps(
                {"code": OVERSIZED_CODE, "message": f"it needs more than {self.limit}"}
            )
        return json.dumps({"code": LIMITED_CODE, "message": f"{self.limit} are used"})


def refusal_of(limits: Iterable[Limit], need: Need, now: datetime) -> LimitRefusal | None:
    """
    Ask all limits of a key that have a window. None: the attempt fits into each.

    Of several that refuse, the one with the longest wait is named. A limit that the attempt never fits has the longest.
    """
    worst: LimitRefusal | None = None
    for limit in limits:
        units = need.of(limit.measure)
        if units > limit.amount:
            return LimitRefusal(limit.name, None)
        wait_s = limit.wait_s(units, now)
        if wait_s > 0 and (worst is None or wait_s > (worst.wait_s or 0.0)):
            worst = LimitRefusal(limit.name, wait_s)
    return worst
