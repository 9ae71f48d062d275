"""
Limits of the simulated provider in a trial, what the catalogue says about them, and what came of it.

The provider counts each model by itself, callgate each entry of its catalogue with its model. A trial has one model for
each protocol, so the limits are those of each protocol.

The provider counts in a sliding window, callgate in token buckets: an error of one is not repeated by the other. The
evaluation is pure, and uses only what the provider saw and when the ledger admitted it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate

from devkit.simulator.simulator import ProviderLimits
from tests.chaos.mix import TARGETS

MINUTE_S = 60.0
LATE_S = 1.0
"""How much later than its claim a request may arrive, so that the limit still holds (ADR 20)."""
FIRST_REFUSED_MAX = 25
"""Refusals until a key is first blocked, if nobody has declared its limit; without probes."""
LATER_REFUSED_MAX = 5
"""The same for each later block, while the rate is known that was accepted before."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What the provider enforces, and what the catalogue declares: the same for each protocol."""

    enforced: ProviderLimits | None = None
    declared: Mapping[str, int] = field(default_factory=dict)
    """Amounts per minute, and the concurrency."""

    @property
    def catalogue(self) -> str:
        """The tables of the catalogue. A provider that enforces nothing is declared unlimited."""
        unlimited = self.enforced is None
        return "".join(
            target.tables(unlimited=unlimited, declared=self.declared)
            for target in TARGETS.values()
        )


def within(window_s: float, per_minute: int) -> int:
    """
    Return how many requests a provider may see in any window, if `per_minute` are declared.

    At most 3 % come at once; the others follow evenly, and each may be a second late. So a trial need not last longer
    than a minute to see that a limit is exceeded.
    """
    burst = 0.03 * per_minute
    less_than = burst + (per_minute - burst + 1) * (window_s + LATE_S) / (MINUTE_S + LATE_S)
    return math.ceil(round(less_than, 6)) - 1


NO_LIMITS = Flow()
PER_MINUTE = 180
CONCURRENCY = 3
TIGHT = Flow(
    # The headers would be read as a limit per minute.
    ProviderLimits(
        requests=within(10, PER_MINUTE), window_s=10, concurrency=CONCURRENCY, sends_headers=False
    ),
    {"requests": PER_MINUTE, "concurrency": CONCURRENCY},
)
"""A little less than the load of a trial: calls wait for it from the first seconds on, and not for long."""
MINUTE = Flow(
    ProviderLimits(requests=80, concurrency=CONCURRENCY),
    {"requests": 80, "concurrency": CONCURRENCY},
)
"""A whole minute as providers count it. A trial must last longer than that."""
UNDECLARED = Flow(
    ProviderLimits(requests=20, window_s=10, sends_headers=False, sends_retry_after=False)
)
"""
Nobody declares it and the provider does not name it: only refusals tell. What is left of the load then takes a minute:
half of what was accepted is the rate.
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request at the provider."""

    at_s: float
    is_refused: bool
    is_probe: bool = False
    late_s: float = 0.0
    """How much later than its claim it arrived."""


@dataclass(frozen=True, slots=True)
class LimitsSeen:
    """What was seen of the limits of one protocol in one trial."""

    flow: Flow
    sent: Sequence[Sent]
    """In order of arrival."""
    in_flight_max: int
    """The most requests that the provider had at one time; a refused one counts too."""
    waits: int
    """How often a call was made to wait for a limit."""
    unblocked_at_s: Sequence[float]
    """When a key that a refusal had blocked was unblocked."""


@dataclass(frozen=True, slots=True)
class LimitUse:
    """The counts of one protocol, or of all."""

    refused: int = 0
    late: int = 0
    """Requests that arrived more than a second after their claim."""
    in_flight_max: int = 0
    waits: int = 0
    used_percent: int = 0
    """Of what the limit allows from the first to the last request; outages included."""
    fullest_percent: int = 0
    """The same of the window with the most requests."""


def use_of(seen: LimitsSeen) -> LimitUse:
    """Count."""
    accepted = [sent.at_s for sent in seen.sent if not sent.is_refused]
    limits = seen.flow.enforced
    amount = limits.requests if limits else None
    used = fullest = 0.0
    if limits and amount and len(accepted) > 1:
        per_minute = seen.flow.declared.get("requests", amount * MINUTE_S / limits.window_s)
        used = len(accepted) * MINUTE_S / (per_minute * (accepted[-1] - accepted[0]))
        fullest = _in_fullest_window(accepted, limits.window_s) / amount
    return LimitUse(
        refused=sum(sent.is_refused for sent in seen.sent),
        late=sum(sent.late_s > LATE_S for sent in seen.sent),
        in_flight_max=seen.in_flight_max,
        waits=seen.waits,
        used_percent=round(100 * used),
        fullest_percent=round(100 * fullest),
    )


def total(uses: Iterable[LimitUse]) -> LimitUse:
    """Return the sums of some protocols, and of what is no sum the largest."""
    summed = ("refused", "late", "waits")
    some = [asdict(use) for use in uses]
    return LimitUse(
        **{
            f.name: (sum if f.name in summed else max)([use[f.name] for use in some] or [0])
            for f in fields(LimitUse)
        }
    )


def is_untested(seen: Collection[LimitsSeen]) -> bool:
    """Tell whether no call had to wait for any declared limit. In a short trial one protocol may have none."""
    declared = [of_protocol for of_protocol in seen if of_protocol.flow.declared]
    return bool(declared) and not any(of_protocol.waits for of_protocol in declared)


def violations_of(seen: LimitsSeen) -> Iterable[str]:
    """Return which promises about limits were broken."""
    use, limits = use_of(seen), seen.flow.enforced
    if limits is None:
        return
    if limits.concurrency is not None and use.in_flight_max > limits.concurrency:
        yield f"{use.in_flight_max} requests at one time, of {limits.concurrency}"
    if not seen.flow.declared:
        yield from _undeclared(seen, use)
        return
    # Without late requests none. Each late one can take the place of another.
    if use.refused > use.late:
        yield f"{use.refused} requests were refused, and {use.late} came late"


def _undeclared(seen: LimitsSeen, use: LimitUse) -> Iterable[str]:
    blocks = Counter(
        bisect_left(seen.unblocked_at_s, sent.at_s)
        for sent in seen.sent
        if sent.is_refused and not sent.is_probe
    )
    for number, refused in sorted(blocks.items()):
        most = LATER_REFUSED_MAX if number else FIRST_REFUSED_MAX
        if refused > most:
            yield f"{refused} requests were refused after {number} blocks, at most {most} may"
    if use.refused == 0:
        yield "no request was refused"


def at_one_time(spans_s: Iterable[tuple[float, float]]) -> int:
    """Return the most of some spans of time that overlap. One that ends when another begins does not."""
    steps = sorted(step for begin, end in spans_s for step in ((begin, 1), (end, -1)))
    return max(accumulate(step for _, step in steps), default=0)


def _in_fullest_window(at_s: Sequence[float], window_s: float) -> int:
    """Return the most requests within any window; `at_s` is in order."""
    # A request that is as old as the window does not count any more.
    return max(bisect_left(at_s, first_s + window_s) - n for n, first_s in enumerate(at_s))
