"""
What the simulated provider answers: an ordered list of rules, each with the steps it replies with.

The first rule that matches a request answers it; its k-th match gets its k-th step, and the last
step repeats. A request that no rule matches gets `Step()`: an immediate, correct answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

WAIT_MAX_S = 3600.0
HUGE_BYTES_MAX = 256 * 1024 * 1024

Seconds = Annotated[float, Field(ge=0, le=WAIT_MAX_S)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Kind(StrEnum):
    """How a request is answered; everything but `ok` and `status` is a fault of the provider."""

    OK = "ok"
    STATUS = "status"
    """An error status with a body in OpenAI's form; 500 unless the step names another."""
    HANG = "hang"
    """Nothing is sent for `hang_s`, then the connection is reset."""
    RESET_BEFORE_HEADERS = "reset_before_headers"
    RESET_AFTER_HEADERS = "reset_after_headers"
    """The head of a correct answer, no byte of its body, then a reset."""
    TRUNCATED_BODY = "truncated_body"
    """Half of the body that Content-Length promised, then an orderly close."""
    GARBAGE = "garbage"
    """Status 200 and application/json over bytes that are neither JSON nor UTF-8."""
    SLOW_DRIP = "slow_drip"
    """A correct body in small pieces over `drip_s`: no single read is slow, the whole is."""
    EMPTY_CHOICES = "empty_choices"
    NO_USAGE = "no_usage"
    WRONG_SCHEMA = "wrong_schema"
    """Status 200 and correct JSON that is no chat completion."""
    REDIRECT = "redirect"
    """307 back to the same address: whoever follows it makes a second request."""
    HUGE_BODY = "huge_body"
    """A correct answer whose text is `huge_bytes` long."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Uniform(_Value):
    """A latency anywhere between two bounds, each value as likely."""

    low_s: Seconds
    high_s: Seconds

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low_s > self.high_s:
            raise ValueError("low_s is above high_s")
        return self


class Lognormal(_Value):
    """A latency with a long tail, as real providers have; cut off at `max_s`."""

    median_s: Annotated[float, Field(gt=0, le=WAIT_MAX_S)]
    sigma: Annotated[float, Field(ge=0, le=5)]
    max_s: Seconds = WAIT_MAX_S


class ErrorBody(_Value):
    """The fields of OpenAI's `error` object; what is None is filled in from the status."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None


class ReportedUsage(_Value):
    """Token counts to report; what is None is computed from the request and the text."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    """Sent as it is, also when it exceeds what the request allowed."""
    cached_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    """Part of the completion tokens, computed or given."""


class Step(_Value):
    """One answer. The defaults are a correct answer at once."""

    kind: Kind = Kind.OK
    latency_s: Seconds | Uniform | Lognormal = 0.0
    """Waited after the whole request was read and before anything is sent or reset."""
    status: Annotated[int, Field(ge=300, le=599)] | None = None
    """For `status` (400 to 599, default 500) and `redirect` (300 to 399, default 307) only."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Added to the answer's headers; replaces one of the same name."""
    retry_after_s: Annotated[int, Field(ge=0)] | None = None
    retry_after_form: Literal["seconds", "http-date"] = "seconds"
    error: ErrorBody = ErrorBody()
    text: str | None = None
    """The message's text; by default "ok", or an object with a value for each property of the request's schema."""
    refusal: str | None = None
    """Sent as `message.refusal`, in place of the text."""
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"] | None = None
    """By default "stop", or "length" where the text was cut at the request's token limit."""
    usage: ReportedUsage = ReportedUsage()
    service_tier: str | None = None
    """By default the request's own, or "default" where that is absent or "auto"."""
    hang_s: Seconds = WAIT_MAX_S
    drip_s: Seconds = 1.0
    huge_bytes: Annotated[int, Field(ge=0, le=HUGE_BYTES_MAX)] = 32 * 1024 * 1024

    @model_validator(mode="after")
    def _status_fits_kind(self) -> Self:
        if self.status is None:
            return self
        if self.kind is Kind.STATUS and self.status >= 400:
            return self
        if self.kind is Kind.REDIRECT and self.status < 400:
            return self
        raise ValueError(f"status {self.status} does not fit kind {self.kind}")


class Match(_Value):
    """Which requests a rule answers: those that meet every condition given; by default all."""

    model: str | None = None
    text: str | None = None
    """Contained in the last user message."""
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of the otherwise matching requests, drawn with the rule's seed in arrival order."""


class Rule(_Value):
    """Answers matching requests with the steps of `reply`, in order; the last one repeats."""

    match: Match = Match()
    reply: Annotated[Sequence[Step], Field(min_length=1, max_length=10_000)]
    seed: int = 0
    """Of every draw this rule makes; the same script draws the same numbers in each run."""


Rules = Annotated[tuple[Rule, ...], Field(max_length=1_000)]
RULES: TypeAdapter[tuple[Rule, ...]] = TypeAdapter(Rules)


class Script:
    """Rules in use: remembers how far each has come."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._turns = [_Turn(rule) for rule in rules]

    def next_step(self, model: str, text: str) -> tuple[Step, float]:
        """
        Decide the answer to one request, and move its rule on by one step.

        Args:
            text: The last user message.

        Returns:
            The step, and the latency drawn for it in seconds.
        """
        for turn in self._turns:
            if turn.matches(model, text):
                return turn.take()
        return Step(), 0.0


class _Turn:
    """One rule, its random numbers, and how many requests it has answered."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._random = random.Random(rule.seed)  # noqa: S311  # Repeatable on purpose, no secret.
        self._answered = 0

    def matches(self, model: str, text: str) -> bool:
        match = self._rule.match
        if match.model is not None and match.model != model:
            return False
        if match.text is not None and match.text not in text:
            return False
        return match.probability is None or self._random.random() < match.probability

    def take(self) -> tuple[Step, float]:
        steps = self._rule.reply
        step = steps[min(self._answered, len(steps) - 1)]
        self._answered += 1
        return step, self._draw(step.latency_s)

    def _draw(self, latency: float | Uniform | Lognormal) -> float:
        match latency:
            case Uniform(low_s=low_s, high_s=high_s):
                return self._random.uniform(low_s, high_s)
            case Lognormal(median_s=median_s, sigma=sigma, max_s=max_s):
                return min(self._random.lognormvariate(math.log(median_s), sigma), max_s)
            case fixed_s:
                return fixed_s
