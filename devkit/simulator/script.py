"""
The answers of the simulated provider: an ordered list of rules, each with a list of steps.

The first rule that matches a request answers it. The k-th match of a rule gets its k-th step; the last step repeats. A
request that no rule matches gets `Step()`, which is an immediate, correct answer.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

WAIT_MAX_S = 3600.0
HUGE_MAX_BYTES = 256 * 1024 * 1024

Seconds = Annotated[float, Field(ge=0, le=WAIT_MAX_S)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Kind(StrEnum):
    """How a request is answered. All kinds but `ok` and `status` are faults of the provider."""

    OK = "ok"
    STATUS = "status"
    """An error status with a body in OpenAI's form; 500 unless the step names another."""
    HANG = "hang"
    """Nothing is sent for `hang_s`; then the connection is reset."""
    RESET_BEFORE_HEADERS = "reset_before_headers"
    RESET_AFTER_HEADERS = "reset_after_headers"
    """The head of a correct answer, no byte of its body, then a reset."""
    TRUNCATED_BODY = "truncated_body"
    """Half of the body that Content-Length promised, then an orderly close."""
    NOT_JSON = "not_json"
    """Status 200 and application/json, but the body is neither JSON nor UTF-8."""
    SLOW_DRIP = "slow_drip"
    """A correct body in small pieces over `drip_s`: no single read is slow, but the whole answer is."""
    EMPTY_CHOICES = "empty_choices"
    NO_USAGE = "no_usage"
    WRONG_SCHEMA = "wrong_schema"
    """Status 200 and correct JSON, but not a chat completion."""
    REDIRECT = "redirect"
    """307 to the same address: a client that follows it sends a second request."""
    HUGE_BODY = "huge_body"
    """A correct answer with a text of `huge_bytes`."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Uniform(_Value):
    """A latency between two bounds, uniformly distributed."""

    low_s: Seconds
    high_s: Seconds

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low_s > self.high_s:
            raise ValueError("low_s is above high_s")
        return self


class Lognormal(_Value):
    """A latency with a long tail, as real providers have; at most `max_s`."""

    median_s: Annotated[float, Field(gt=0, le=WAIT_MAX_S)]
    sigma: Annotated[float, Field(ge=0, le=5)]
    max_s: Seconds = WAIT_MAX_S


class ErrorBody(_Value):
    """The fields of OpenAI's `error` object. None is replaced by a value that fits the status."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None


class ReportedUsage(_Value):
    """Token counts to report. None is replaced by a count of the request or the text."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    """Sent unchanged, also if it exceeds the limit of the request."""
    cached_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    """All that was written to the cache; reported in Anthropic's messages only."""
    cache_write_1h_tokens: Tokens = 0
    """The part of it that is kept for an hour."""
    reasoning_tokens: Tokens = 0
    """Included in the completion tokens, whether these are computed or given."""


class ScriptedCall(_Value):
    """One tool that an answer asks for. Its id is drawn for each answer."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: str = "{}"
    """JSON text, sent as it is; a dict is converted. Anthropic's messages need an object."""

    @field_validator("arguments", mode="before")
    @classmethod
    def _arguments_as_text(cls, arguments: object) -> object:
        return json.dumps(arguments) if isinstance(arguments, dict) else arguments


class Step(_Value):
    """
    One answer. By default it is correct and immediate, and a text, also where the request has tools.

    If the request forces a tool, an answer without tool calls is a call of that one, with the text as its arguments.
    """

    kind: Kind = Kind.OK
    latency_s: Seconds | Uniform | Lognormal = 0.0
    """The pause between the end of the request and the answer or the fault."""
    status: Annotated[int, Field(ge=300, le=599)] | None = None
    """For `status` (400 to 599, default 500) and `redirect` (300 to 399, default 307) only."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Added to the answer's headers; replaces one of the same name."""
    retry_after_s: Annotated[int, Field(ge=0)] | None = None
    retry_after_form: Literal["seconds", "http-date"] = "seconds"
    error: ErrorBody = ErrorBody()
    text: str | None = None
    """
    The message's text; by default "ok", or an object with a value for each property of the request's schema.

    With tool calls it is empty by default.
    """
    tool_calls: Annotated[tuple[ScriptedCall, ...], Field(max_length=128)] = ()
    reasoning: str | None = None
    """
    What the model thought, as a block with a signature before the answer.

    Without it an answer whose usage has reasoning tokens has such a block too, but not in chat completions.
    """
    refusal: str | None = None
    """Sent as `message.refusal`, instead of the text."""
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"] | None = None
    """By default "tool_calls" with those, "length" if the text was cut at the token limit of the request, or "stop"."""
    usage: ReportedUsage = ReportedUsage()
    service_tier: str | None = None
    """By default that of the request, or "default" if that is missing or "auto"."""
    hang_s: Seconds = WAIT_MAX_S
    drip_s: Seconds = 1.0
    huge_bytes: Annotated[int, Field(ge=0, le=HUGE_MAX_BYTES)] = 32 * 1024 * 1024

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
    """Which requests a rule answers: those that satisfy every given condition; by default all."""

    model: str | None = None
    text: str | None = None
    """A part of the last user message, or of the results of tools after it."""
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of the otherwise matching requests, drawn in order of arrival with the seed of the rule."""


class Rule(_Value):
    """Answers matching requests with the steps of `reply`, in order. The last step repeats."""

    match: Match = Match()
    reply: Annotated[Sequence[Step], Field(min_length=1, max_length=10_000)]
    seed: int = 0
    """The seed of all random draws of this rule: every run of a script draws the same numbers."""


Rules = Annotated[tuple[Rule, ...], Field(max_length=1_000)]
RULES: TypeAdapter[tuple[Rule, ...]] = TypeAdapter(Rules)


class Script:
    """Rules in use, with the number of requests that each has answered."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = [_RuleInUse(rule) for rule in rules]

    def next_step(self, model: str, text: str) -> tuple[Step, float]:
        """
        Return the answer to one request, and advance its rule by one step.

        Args:
            text: The last user message, and the results of tools after it.

        Returns:
            The step, and the latency drawn for it in seconds.
        """
        for rule in self._rules:
            if rule.matches(model, text):
                return rule.next_step()
        return Step(), 0.0


class _RuleInUse:
    """One rule, its random numbers, and the number of requests that it has answered."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._random = random.Random(rule.seed)  # noqa: S311  # Repeatable on purpose, not a secret.
        self._answered = 0

    def matches(self, model: str, text: str) -> bool:
        match = self._rule.match
        if match.model is not None and match.model != model:
            return False
        if match.text is not None and match.text not in text:
            return False
        return match.probability is None or self._random.random() < match.probability

    def next_step(self) -> tuple[Step, float]:
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
