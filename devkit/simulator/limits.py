"""
Rate limits of the simulated provider, counted in a sliding window.

callgate keeps its own pace with token buckets. The simulator counts with another algorithm on purpose: an error of one
is not repeated by the other. Nothing here reads a clock; times are an argument.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from devkit.simulator.script import ErrorBody

ARRIVALS_MAX = 2_000_000
MINUTE_S, HOUR_S = 60, 3600
# What a limit counts, in the order of every `Cost`. Concurrency is not among them: it has no window.
MEASURES = ("requests", "input_tokens", "output_tokens", "tokens")
# OpenAI's headers name only these.
_IN_HEADERS = ("requests", "tokens")

Cost = tuple[int, int, int, int]
"""What one request takes of each of `MEASURES`."""

Amount = Annotated[int, Field(ge=1)]


class ProviderLimits(BaseModel):
    """How much of each model one API key may use within any `window_s` seconds. None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Amount | None = None
    input_tokens: Amount | None = None
    """As the simulator counts them in the request."""
    output_tokens: Amount | None = None
    """The most that the request allows, not what the answer has."""
    tokens: Amount | None = None
    """Input and output tokens together."""
    window_s: Annotated[float, Field(gt=0)] = 60.0
    concurrency: Amount | None = None
    """Requests that are answered at the same time."""
    refusals_count: bool = False
    """Whether a refused request takes as much as an accepted one."""
    sends_headers: bool = True
    """Whether answers carry the headers about limits of their protocol."""
    sends_retry_after: bool = True

    def of(self, measure: str) -> int | None:
        """Return the limit of one of `MEASURES`."""
        amount: int | None = getattr(self, measure)
        return amount


class Arrival(NamedTuple):
    """One request that was accepted or refused."""

    at_s: float
    is_accepted: bool
    input_tokens: int
    output_tokens: int


class LimitCounts(BaseModel):
    """How many requests the limits accepted and refused."""

    model_config = ConfigDict(frozen=True)

    accepted: int
    refused: int
    in_flight: int
    """Accepted requests without a complete answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was refused, and when it would fit."""

    measure: str
    """One of `MEASURES`, or `concurrency`."""
    limit: int
    wait_s: float | None
    """None if waiting does not help: the request is larger than the limit."""

    def error(self, model: str) -> ErrorBody:
        """Return the fields of OpenAI's error."""
        kind = "requests" if self.measure in ("requests", "concurrency") else "tokens"
        message = f"Rate limit reached for {model} on {self.measure}: limit {self.limit}."
        return ErrorBody(message=message, type=kind, code="rate_limit_exceeded")


@dataclass(frozen=True, slots=True)
class Level:
    """How much of one limit is left."""

    measure: str
    limit: int
    remaining: int
    reset_s: float
    """After how many seconds all would be left again if no request came."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the limits say to one request."""

    refusal: Refusal | None
    headers: Mapping[str, str]
    """OpenAI's."""
    levels: tuple[Level, ...] = ()
    """The same, and more, for protocols with other headers. Empty if headers are not sent."""


def cost_of(input_tokens: int, output_tokens: int) -> Cost:
    """Return what a request takes of each measure."""
    return 1, input_tokens, output_tokens, input_tokens + output_tokens


class SlidingWindow:
    """What one API key has taken of one model within the last `window_s` seconds."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._taken: deque[tuple[float, Cost]] = deque()
        self._sums = [0] * len(MEASURES)

    def forget(self, before_s: float) -> None:
        """Forget what was taken up to a time. What is as old as the window no longer counts."""
        while self._taken and self._taken[0][0] <= before_s:
            _, cost = self._taken.popleft()
            self._add(cost, -1)

    def take(self, at_s: float, cost: Cost) -> None:
        """Count a request."""
        self._taken.append((at_s, cost))
        self._add(cost, 1)

    def refusal_of(self, cost: Cost, limits: ProviderLimits, now_s: float) -> Refusal | None:
        """Return the refusal with the longest wait, or None if the request fits."""
        found = [
            Refusal(measure, limit, self._wait_s(index, cost[index], limit, limits, now_s))
            for index, measure in enumerate(MEASURES)
            if (limit := limits.of(measure)) is not None
            and cost[index] > 0
            and self._sums[index] + cost[index] > limit
        ]
        if limits.concurrency is not None and self.in_flight >= limits.concurrency:
            # Nobody knows when an answer is complete. Zero becomes the shortest Retry-After.
            found.append(Refusal("concurrency", limits.concurrency, 0.0))
        return max(found, key=_wait_or_endless, default=None)

    def levels(self, limits: ProviderLimits, now_s: float) -> tuple[Level, ...]:
        """Return how much of each limit is left."""
        return tuple(
            Level(
                measure,
                limit,
                max(0, limit - used),
                self._taken[-1][0] + limits.window_s - now_s if used else 0.0,
            )
            for measure, used in zip(MEASURES, self._sums, strict=True)
            if (limit := limits.of(measure)) is not None
        )

    def _add(self, cost: Cost, sign: int) -> None:
        for index, amount in enumerate(cost):
            self._sums[index] += sign * amount

    def _wait_s(
        self, index: int, amount: int, limit: int, limits: ProviderLimits, now_s: float
    ) -> float | None:
        used = self._sums[index]
        for at_s, cost in self._taken:
            used -= cost[index]
            if used + amount <= limit:
                return at_s + limits.window_s - now_s
        return None


class RateLimiter:
    """
    Accepts and refuses requests by limits, which may change at any time.

    Each pair of API key and model has a window of its own. After a change the windows keep what they have counted; a
    longer window begins with what the shorter one remembers. Without limits only requests in flight are counted.
    """

    def __init__(self, limits: ProviderLimits | None = None) -> None:
        self.limits = limits
        self._windows: dict[tuple[str, str], SlidingWindow] = {}
        self._accepted = 0
        self._refused = 0
        self._at_s = array("d")
        self._are_accepted = array("b")
        self._input_tokens = array("q")
        self._output_tokens = array("q")

    def arrived(self, key: str, model: str, cost: Cost, now_s: float) -> Decision:
        """Decide about a request, and count it. An accepted one is in flight until `finished`."""
        window = self._windows.setdefault((key, model), SlidingWindow())
        limits = self.limits
        if limits is None:
            window.in_flight += 1
            return Decision(None, {})
        window.forget(now_s - limits.window_s)
        refusal = window.refusal_of(cost, limits, now_s)
        if refusal is None or limits.refusals_count:
            window.take(now_s, cost)
        if refusal is None:
            window.in_flight += 1
        elif limits.refusals_count:
            # The refused request counts too, so the wait is longer now.
            refusal = window.refusal_of(cost, limits, now_s)
        self._note(refusal is None, cost, now_s)
        levels = window.levels(limits, now_s) if limits.sends_headers else ()
        return Decision(refusal, _headers(levels, refusal, limits), levels)

    def finished(self, key: str, model: str) -> None:
        """Note that the answer to an accepted request is complete, or that its client has gone."""
        self._windows[key, model].in_flight -= 1

    def counts(self) -> LimitCounts:
        """Return the figures so far."""
        in_flight = sum(window.in_flight for window in self._windows.values())
        return LimitCounts(accepted=self._accepted, refused=self._refused, in_flight=in_flight)

    def arrivals(self, first: int, arrivals_max: int) -> list[Arrival]:
        """Return up to `arrivals_max` requests in order of arrival, from number `first` on."""
        part = slice(first, first + arrivals_max)
        columns = (self._at_s, self._are_accepted, self._input_tokens, self._output_tokens)
        return [
            Arrival(at_s, bool(is_accepted), input_tokens, output_tokens)
            for at_s, is_accepted, input_tokens, output_tokens in zip(
                *(column[part] for column in columns), strict=True
            )
        ]

    def _note(self, is_accepted: bool, cost: Cost, now_s: float) -> None:
        self._accepted += is_accepted
        self._refused += not is_accepted
        if len(self._at_s) < ARRIVALS_MAX:
            _, input_tokens, output_tokens, _ = cost
            self._at_s.append(now_s)
            self._are_accepted.append(is_accepted)
            self._input_tokens.append(input_tokens)
            self._output_tokens.append(output_tokens)


def _headers(
    levels: tuple[Level, ...], refusal: Refusal | None, limits: ProviderLimits
) -> dict[str, str]:
    """Return OpenAI's headers, and the wait of a refusal."""
    headers: dict[str, str] = {}
    for level in levels:
        if level.measure in _IN_HEADERS:
            headers[f"x-ratelimit-limit-{level.measure}"] = str(level.limit)
            headers[f"x-ratelimit-remaining-{level.measure}"] = str(level.remaining)
            headers[f"x-ratelimit-reset-{level.measure}"] = duration(level.reset_s)
    if refusal is not None and refusal.wait_s is not None and limits.sends_retry_after:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.wait_s)))
    return headers


def duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: `0s`, `120ms`, `8.64s`, `6m0s`, `1h0m0s`. It is rounded up to 1 ms."""
    milliseconds = max(0, math.ceil(round(seconds * 1000, 6)))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    whole_s = f"{milliseconds % (MINUTE_S * 1000) / 1000:g}s"
    minutes = milliseconds // (MINUTE_S * 1000)
    if minutes == 0:
        return whole_s
    if minutes < HOUR_S // MINUTE_S:
        return f"{minutes}m{whole_s}"
    return f"{minutes // MINUTE_S}h{minutes % MINUTE_S}m{whole_s}"


def _wait_or_endless(refusal: Refusal) -> float:
    return math.inf if refusal.wait_s is None else refusal.wait_s
