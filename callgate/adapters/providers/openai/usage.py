"""
The tokens a reply names, in every dialect that is known.

`ROWS` is the table of dialects. Servers mix them, and some send several at once, so each count is looked for under
every name it has. Two things differ between servers that use the same names: whether cached tokens are part of the
input, and whether reasoning is part of the output. A total that is named decides that; without one each row's source
does. What contradicts itself is read as dearly as the numbers allow, and flagged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from callgate.domain.requests import Anomaly, Usage

TOKENS_MAX = 2**31 - 1
"""A larger count is a mistake of the provider's."""
_DIGITS = re.compile(r"[0-9]{1,12}")

Kind = Literal["input", "output", "total", "cached", "cache_write", "reasoning"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Row:
    """One name of one count."""

    kind: Kind
    path: str
    source: str
    """Who says so, and when it was read."""
    is_beside: bool = False
    """A part that its source counts beside the whole, not within it."""


_OPENAI = "OpenAI API reference, chat completion object (2026-11)"
_RESPONSES = "OpenAI API reference, response object (2026-11)"
_ANTHROPIC = "Anthropic API reference, Messages, usage (2026-11)"
_GEMINI = "Gemini API reference, UsageMetadata (2026-11)"
_BEDROCK = "Amazon Bedrock API reference, TokenUsage (2026-11)"
_DEEPSEEK = "DeepSeek API reference, chat completion, usage (2026-11)"

ROWS = (
    Row("input", "prompt_tokens", _OPENAI),
    Row("output", "completion_tokens", _OPENAI),
    Row("total", "total_tokens", _OPENAI),
    Row("cached", "prompt_tokens_details.cached_tokens", _OPENAI),
    Row("cache_write", "prompt_tokens_details.cache_write_tokens", "OpenRouter, usage accounting (2026-11)"),
    # xAI counts them beside completion_tokens under the same name; its total shows it (docs.x.ai, usage, 2026-11).
    Row("reasoning", "completion_tokens_details.reasoning_tokens", _OPENAI),
    Row("input", "input_tokens", _RESPONSES),
    Row("output", "output_tokens", _RESPONSES),
    Row("cached", "input_tokens_details.cached_tokens", _RESPONSES),
    Row("reasoning", "output_tokens_details.reasoning_tokens", _RESPONSES),
    Row("cached", "cached_tokens", "Moonshot AI, chat completion, usage (2026-11)"),
    Row("reasoning", "reasoning_tokens", "SGLang, UsageInfo (2026-11)"),
    Row("cached", "prompt_cache_hit_tokens", _DEEPSEEK),
    Row("cached", "cache_read_input_tokens", _ANTHROPIC, is_beside=True),
    Row("cache_write", "cache_creation_input_tokens", _ANTHROPIC, is_beside=True),
    Row("input", "promptTokenCount", _GEMINI),
    Row("output", "candidatesTokenCount", _GEMINI),
    Row("total", "totalTokenCount", _GEMINI),
    Row("cached", "cachedContentTokenCount", _GEMINI),
    Row("reasoning", "thoughtsTokenCount", _GEMINI, is_beside=True),
    Row("input", "inputTokens", _BEDROCK),
    Row("output", "outputTokens", _BEDROCK),
    Row("total", "totalTokens", _BEDROCK),
    Row("cached", "cacheReadInputTokens", _BEDROCK, is_beside=True),
    Row("cache_write", "cacheWriteInputTokens", _BEDROCK, is_beside=True),
)  # fmt: skip
"""Where each count may stand in a usage; a dot goes into a nested object."""

PLACES = (
    "usage",  # OpenAI
    "x_groq.usage",  # Groq, chat completion chunk (2026-11)
    "usageMetadata",  # Gemini
    "usage_metadata",  # Gemini, in its SDK's spelling
    "message.usage",  # Anthropic, message_start
    "response.usage",  # OpenAI, response.completed
    "metadata.usage",  # Amazon Bedrock's gateways
    "choice.usage",  # Moonshot AI, in a choice
    "choice.message.usage",
    "error.usage",
    "error.metadata.usage",  # OpenRouter
)
"""Where a usage may stand in a reply. `choice` is the only one there is: of several nobody knows what each counts."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a reply says about its tokens."""

    usage: Usage | None
    """None: it does not say, or what it says cannot be true."""
    anomalies: tuple[Anomaly, ...] = ()


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts of a usage before anything is said about what is part of what; None is what it does not name."""

    input: int | None
    output: int | None
    total: int | None
    cached: int
    cache_write: int
    reasoning: int
    is_cache_beside: bool
    is_reasoning_beside: bool
    are_at_odds: bool
    """Two names of one count have different numbers, or the cached tokens are no count."""


def usage_in(reply: Mapping[str, Any], *, has_text: bool) -> Told:
    """
    Read the tokens a reply names.

    Args:
        reply: The body of the reply.
        has_text: Something was written, so a count of zero tokens cannot be true.
    """
    choices = reply.get("choices")
    only = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    places = {**reply, "choice": only}
    told = [usage for place in PLACES if isinstance(usage := _at(places, place), dict)]
    counted = [usage for usage in told if any(_at(usage, row.path) is not None for row in ROWS)]
    # Some gateways put zeros where the counts belong, and the counts elsewhere.
    counted.sort(key=lambda usage: not any(_at(usage, row.path) for row in ROWS))
    return usage_of(counted[0], has_text=has_text) if counted else Told(None)


def usage_of(usage: Mapping[str, Any], *, has_text: bool = False) -> Told:
    """Read one usage object; see `usage_in`."""
    try:
        counts = _counts(usage)
    except ValueError:
        return Told(None, (Anomaly.USAGE_IMPLAUSIBLE,))
    has_zero = has_text and 0 in (counts.input, counts.output)
    if has_zero:
        counts = replace(counts, input=counts.input or None, output=counts.output or None)
    readings = []
    for is_cache_beside, is_reasoning_beside in product(
        (counts.is_cache_beside, not counts.is_cache_beside),
        (counts.is_reasoning_beside, not counts.is_reasoning_beside),
    ):
        reading = _reading(counts, is_cache_beside, is_reasoning_beside, int(has_text))
        if reading is not None and _fits(reading, counts):
            return Told(reading, (Anomaly.USAGE_CONTRADICTORY,) if counts.are_at_odds else ())
        readings += [reading] if reading else []
    if counts.input is None or counts.output is None:
        return Told(None, (Anomaly.USAGE_ZERO,) if has_zero else ())
    return Told(_dearest(counts, readings), (Anomaly.USAGE_CONTRADICTORY,))


def _reading(
    counts: _Counts, is_cache_beside: bool, is_reasoning_beside: bool, part_min: int
) -> Usage | None:
    """The usage if the parts are within, or beside, what they are parts of; None if that cannot be."""
    cache = counts.cached + counts.cache_write
    input_tokens, output_tokens = counts.input, counts.output
    if input_tokens is not None and is_cache_beside:
        input_tokens += cache
    if output_tokens is not None and is_reasoning_beside:
        output_tokens += counts.reasoning
    # A missing part that the total gives.
    if input_tokens is None and output_tokens is not None and counts.total is not None:
        input_tokens = counts.total - output_tokens
    elif output_tokens is None and input_tokens is not None and counts.total is not None:
        output_tokens = counts.total - input_tokens
    if input_tokens is None or input_tokens < max(cache, part_min):
        return None
    if output_tokens is None or output_tokens < max(counts.reasoning, part_min):
        return None
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=counts.cached,
        cache_write_tokens=counts.cache_write,
        output_tokens=output_tokens,
        reasoning_tokens=counts.reasoning,
    )


def _fits(reading: Usage, counts: _Counts) -> bool:
    """True if the total says so. Without one the cache must be where its source says; xAI shares OpenAI's names."""
    if counts.total is not None:
        return reading.input_tokens + reading.output_tokens == counts.total
    cache = counts.cached + counts.cache_write
    beside = reading.input_tokens == (counts.input or 0) + cache
    return not cache or counts.input is None or beside == counts.is_cache_beside


def _dearest(counts: _Counts, readings: Sequence[Usage]) -> Usage:
    """
    The dearest usage that contradicting numbers allow.

    What a total says beyond the sum is output: no price list has output that is cheaper than input. Where that is
    little beside the cached tokens, these are beside the input all the same.
    """
    dearest = max(readings, key=lambda usage: (usage.output_tokens, usage.input_tokens))
    within = min(readings, key=lambda usage: usage.input_tokens)
    hidden = (counts.total or 0) - within.input_tokens
    if hidden <= dearest.output_tokens:
        return dearest
    is_more = hidden - dearest.output_tokens >= dearest.input_tokens - within.input_tokens
    return (within if is_more else dearest).model_copy(update={"output_tokens": hidden})


def _counts(usage: Mapping[str, Any]) -> _Counts:
    """
    Look for every count under each of its names.

    Raises:
        ValueError: One of them can be no count.
    """
    numbers: dict[Kind, set[int]] = {kind: set() for kind in KINDS}
    beside: dict[Kind, set[bool]] = {kind: set() for kind in KINDS}
    is_cached_odd = False
    for row in ROWS:
        try:
            count = _count(_at(usage, row.path))
        except ValueError:
            if row.kind != "cached":
                raise
            # Without it all input costs the full price, which is never less than the truth.
            is_cached_odd, count = True, None
        if count is not None:
            numbers[row.kind].add(count)
            if count:
                beside[row.kind].add(row.is_beside)
    for kind, found in numbers.items():
        # Some servers send the names of several dialects and fill in one. Zero cached tokens are the dearer count.
        if kind != "cached" and len(found) > 1:
            found.discard(0)
    return _Counts(
        input=max(numbers["input"], default=None),
        output=max(numbers["output"], default=None),
        # A total of 0 beside counts says nothing.
        total=max(numbers["total"], default=0) or None,
        cached=min(numbers["cached"], default=0),
        cache_write=max(numbers["cache_write"], default=0),
        reasoning=max(numbers["reasoning"], default=0),
        is_cache_beside=beside["cached"] | beside["cache_write"] == {True},
        is_reasoning_beside=beside["reasoning"] == {True},
        are_at_odds=is_cached_odd or any(len(found) > 1 for found in numbers.values()),
    )


def _count(value: object) -> int | None:
    """
    Read a count: a whole number, also one with a point or in quotes.

    Raises:
        ValueError: It can be none.
    """
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        raise ValueError("a count is a whole number of tokens")
    return value


def _at(value: object, path: str) -> object:
    """What stands at a path of names; None if nothing does."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
