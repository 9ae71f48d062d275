"""
Reads the token counts of a reply, in the dialects of all known OpenAI-compatible servers.

`COUNT_FIELDS` is the table of dialects. Servers mix them, and some send several at once, so each count is looked up
under all its names. Servers that use the same names differ in two points: whether cached tokens are part of the input,
and whether reasoning tokens are part of the output. A total in the reply decides this. Without a total the field's
source does. Contradictory counts are read at the highest cost that they allow, and flagged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from callgate.domain.requests import Anomaly, Usage

TOKENS_MAX = 2**31 - 1
"""A larger count is an error of the provider."""
_DIGITS = re.compile(r"[0-9]{1,12}")

Kind = Literal[
    "input", "output", "total", "cached", "cache_write", "cache_write_5m", "cache_write_1h", "reasoning"
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
CACHE_KINDS: tuple[Kind, ...] = ("cached", "cache_write", "cache_write_5m", "cache_write_1h")


@dataclass(frozen=True, slots=True)
class CountField:
    """One name of one count."""

    kind: Kind
    path: str
    source: str
    """The documentation, and when it was read."""
    is_additional: bool = False
    """The source counts this part in addition to the whole. Otherwise the part is included in the whole."""


_OPENAI = "OpenAI API reference, chat completion object (2026-11)"
_RESPONSES = "OpenAI API reference, response object (2026-11)"
_ANTHROPIC = "Anthropic API reference, Messages, usage (2026-11)"
_GEMINI = "Gemini API reference, UsageMetadata (2026-11)"
_BEDROCK = "Amazon Bedrock API reference, TokenUsage (2026-11)"
_DEEPSEEK = "DeepSeek API reference, chat completion, usage (2026-11)"

COUNT_FIELDS = (
    CountField("input", "prompt_tokens", _OPENAI),
    CountField("output", "completion_tokens", _OPENAI),
    CountField("total", "total_tokens", _OPENAI),
    CountField("cached", "prompt_tokens_details.cached_tokens", _OPENAI),
    CountField("cache_write", "prompt_tokens_details.cache_write_tokens", "OpenRouter, usage accounting (2026-11)"),
    # xAI uses the same name but excludes them from completion_tokens; its total shows it (docs.x.ai, usage, 2026-11).
    CountField("reasoning", "completion_tokens_details.reasoning_tokens", _OPENAI),
    CountField("input", "input_tokens", _RESPONSES),
    CountField("output", "output_tokens", _RESPONSES),
    CountField("cached", "input_tokens_details.cached_tokens", _RESPONSES),
    CountField("cache_write", "input_tokens_details.cache_write_tokens", "openai-python 3.54, ResponseUsage (2026-11)"),
    CountField("reasoning", "output_tokens_details.reasoning_tokens", _RESPONSES),
    CountField("cached", "cached_tokens", "Moonshot AI, chat completion, usage (2026-11)"),
    CountField("reasoning", "reasoning_tokens", "SGLang, UsageInfo (2026-11)"),
    CountField("cached", "prompt_cache_hit_tokens", _DEEPSEEK),
    CountField("cached", "cache_read_input_tokens", _ANTHROPIC, is_additional=True),
    CountField("cache_write", "cache_creation_input_tokens", _ANTHROPIC, is_additional=True),
    CountField("cache_write_5m", "cache_creation.ephemeral_5m_input_tokens", _ANTHROPIC, is_additional=True),
    CountField("cache_write_1h", "cache_creation.ephemeral_1h_input_tokens", _ANTHROPIC, is_additional=True),
    CountField("reasoning", "output_tokens_details.thinking_tokens", _ANTHROPIC),
    CountField("input", "promptTokenCount", _GEMINI),
    CountField("output", "candidatesTokenCount", _GEMINI),
    CountField("total", "totalTokenCount", _GEMINI),
    CountField("cached", "cachedContentTokenCount", _GEMINI),
    CountField("reasoning", "thoughtsTokenCount", _GEMINI, is_additional=True),
    CountField("input", "inputTokens", _BEDROCK),
    CountField("output", "outputTokens", _BEDROCK),
    CountField("total", "totalTokens", _BEDROCK),
    CountField("cached", "cacheReadInputTokens", _BEDROCK, is_additional=True),
    CountField("cache_write", "cacheWriteInputTokens", _BEDROCK, is_additional=True),
)  # fmt: skip
"""Where each count may be in a usage object; a dot leads into a nested object."""

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
"""Where a usage object may be in a reply. `choice` is the only choice: with several it is unclear what each counts."""


@dataclass(frozen=True, slots=True)
class OwnCounts:
    """Names of a protocol that no other one has. A folder has them beside its reply; both tables are looked up too."""

    places: tuple[str, ...] = ()
    fields: tuple[CountField, ...] = ()

    @property
    def all_places(self) -> tuple[str, ...]:
        """Where its usage may be, its own places first."""
        return (*self.places, *PLACES)

    @property
    def all_fields(self) -> tuple[CountField, ...]:
        """How its counts may be named."""
        return (*self.fields, *COUNT_FIELDS)


USUAL_COUNTS = OwnCounts()
"""A protocol whose names are in the tables."""


@dataclass(frozen=True, slots=True)
class WireUsage:
    """The usage that a reply names, and what is odd about it."""

    usage: Usage | None
    """None: the reply names none, or its counts are impossible."""
    anomalies: tuple[Anomaly, ...] = ()


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts of one usage object as they were sent; None if a count is missing."""

    input: int | None
    output: int | None
    total: int | None
    cached: int
    cache_write: int
    """All of it, for whatever time."""
    cache_write_1h: int
    reasoning: int
    is_cache_additional: bool
    is_reasoning_additional: bool
    is_contradictory: bool
    """Two names of one count have different numbers, or the number of cached tokens is invalid."""


def usage_in(
    reply: Mapping[str, Any], *, has_text: bool, own: OwnCounts = USUAL_COUNTS
) -> WireUsage:
    """
    Find the usage object in a reply and read it.

    Args:
        reply: The parsed body of the reply.
        has_text: The reply holds text of the model, so a count of zero tokens is wrong.
    """
    choices = reply.get("choices")
    only = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    places = {**reply, "choice": only}
    found = [usage for place in own.all_places if isinstance(usage := _at(places, place), dict)]
    paths = [field.path for field in own.all_fields]
    counted = [u for u in found if any(_at(u, path) is not None for path in paths)]
    # Some gateways send zeros in the usual place and the true counts in another one.
    counted.sort(key=lambda usage: not any(_at(usage, path) for path in paths))
    return usage_of(counted[0], has_text=has_text, own=own) if counted else WireUsage(None)


def usage_of(
    usage: Mapping[str, Any], *, has_text: bool = False, own: OwnCounts = USUAL_COUNTS
) -> WireUsage:
    """Read one usage object; `has_text` as in `usage_in`."""
    try:
        counts = _counts(usage, own.all_fields)
    except ValueError:
        return WireUsage(None, (Anomaly.USAGE_IMPLAUSIBLE,))
    has_zero = has_text and 0 in (counts.input, counts.output)
    if has_zero:
        counts = replace(counts, input=counts.input or None, output=counts.output or None)
    candidates = []
    for is_cache_additional, is_reasoning_additional in product(
        (counts.is_cache_additional, not counts.is_cache_additional),
        (counts.is_reasoning_additional, not counts.is_reasoning_additional),
    ):
        candidate = _candidate(counts, is_cache_additional, is_reasoning_additional, int(has_text))
        if candidate is not None and _is_consistent(candidate, counts):
            return WireUsage(
                candidate, (Anomaly.USAGE_CONTRADICTORY,) if counts.is_contradictory else ()
            )
        candidates += [candidate] if candidate else []
    if counts.input is None or counts.output is None:
        return WireUsage(None, (Anomaly.USAGE_ZERO,) if has_zero else ())
    return WireUsage(_highest_cost(counts, candidates), (Anomaly.USAGE_CONTRADICTORY,))


def _candidate(
    counts: _Counts, is_cache_additional: bool, is_reasoning_additional: bool, part_min: int
) -> Usage | None:
    """
    The usage under one assumption about what the counts include; None if it is impossible.

    Args:
        is_cache_additional: The cached tokens are not included in the input count.
        is_reasoning_additional: The reasoning tokens are not included in the output count.
        part_min: The least number of input and of output tokens.
    """
    cache = counts.cached + counts.cache_write
    input_tokens, output_tokens = counts.input, counts.output
    if input_tokens is not None and is_cache_additional:
        input_tokens += cache
    if output_tokens is not None and is_reasoning_additional:
        output_tokens += counts.reasoning
    # A missing count follows from the total.
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
        cache_write_1h_tokens=counts.cache_write_1h,
    )


def _is_consistent(candidate: Usage, counts: _Counts) -> bool:
    """True if the usage adds up to the total. Without a total: if the cache is counted as its source documents."""
    if counts.total is not None:
        return candidate.input_tokens + candidate.output_tokens == counts.total
    cache = counts.cached + counts.cache_write
    is_additional = candidate.input_tokens == (counts.input or 0) + cache
    return not cache or counts.input is None or is_additional == counts.is_cache_additional


def _highest_cost(counts: _Counts, candidates: Sequence[Usage]) -> Usage:
    """
    The usage with the highest cost that contradictory counts allow.

    Tokens of the total that no count explains are output: no price list has output cheaper than input. If they are
    fewer than the cached tokens, the cached tokens are counted in addition to the input as well.
    """
    highest = max(candidates, key=lambda usage: (usage.output_tokens, usage.input_tokens))
    least_input = min(candidates, key=lambda usage: usage.input_tokens)
    unexplained = (counts.total or 0) - least_input.input_tokens
    if unexplained <= highest.output_tokens:
        return highest
    is_output_larger = (
        unexplained - highest.output_tokens >= highest.input_tokens - least_input.input_tokens
    )
    return (least_input if is_output_larger else highest).model_copy(
        update={"output_tokens": unexplained}
    )


def _counts(usage: Mapping[str, Any], fields: Sequence[CountField]) -> _Counts:
    """
    Look up every count under each of its names.

    Raises:
        ValueError: A value is not a valid count.
    """
    numbers: dict[Kind, set[int]] = {kind: set() for kind in KINDS}
    beside: dict[Kind, set[bool]] = {kind: set() for kind in KINDS}
    is_cached_invalid = False
    for field in fields:
        try:
            count = _count(_at(usage, field.path))
        except ValueError:
            if field.kind != "cached":
                raise
            # Without cached tokens all input is posted at the full price, which is never too low.
            is_cached_invalid, count = True, None
        if count is not None:
            numbers[field.kind].add(count)
            if count:
                beside[field.kind].add(field.is_additional)
    for kind, found in numbers.items():
        # Some servers send the names of several dialects and fill in one. For cached tokens zero costs more and stays.
        if kind != "cached" and len(found) > 1:
            found.discard(0)
    # Of the whole and the sum of its parts the larger counts. What is in no part is counted at the dearer one.
    write_5m, write_1h = (
        max(numbers[kind], default=0) for kind in ("cache_write_5m", "cache_write_1h")
    )
    writes = numbers["cache_write"] | ({write_5m + write_1h} - {0})
    write = max(writes, default=0)
    return _Counts(
        input=max(numbers["input"], default=None),
        output=max(numbers["output"], default=None),
        # A total of 0 beside other counts is not a total.
        total=max(numbers["total"], default=0) or None,
        cached=min(numbers["cached"], default=0),
        cache_write=write,
        cache_write_1h=write - write_5m if write_5m or write_1h else 0,
        reasoning=max(numbers["reasoning"], default=0),
        is_cache_additional=set().union(*(beside[kind] for kind in CACHE_KINDS)) == {True},
        is_reasoning_additional=beside["reasoning"] == {True},
        is_contradictory=is_cached_invalid
        or len(writes) > 1
        or any(len(found) > 1 for found in numbers.values()),
    )


def _count(value: object) -> int | None:
    """
    Read a count: an integer, also written as `7.0` or in quotes; None if it is missing.

    Raises:
        ValueError: The value is not a count.
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
    """The value at a dotted path; None if there is none."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
