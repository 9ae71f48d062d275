"""Takes an answer out of what some models put around it: a block of thoughts before it, a Markdown fence around it."""

from __future__ import annotations

import re
from collections.abc import Collection

THINK_START, THINK_END = "<think>", "</think>"
_ANSWER_STARTS = ("{", "[", '"', "```", "~~~")
_FENCE = re.compile(
    r"""(`{3,}+|~{3,}+)[ \t]*+(?:[A-Za-z0-9_+-]*+[ \t]*+\r?\n|(?:json)?[ \t]*+(?=[{\["]))""",
    re.IGNORECASE,
)
"""Possessive: a megabyte of spaces would be tried in each of a trillion ways."""


def unwrapped(text: str, unwraps: Collection[str]) -> str:
    """
    The answer without its wrappings.

    Args:
        unwraps: What the provider is declared to put around answers; see `ProviderEntry.unwraps`.

    Returns:
        The text as it came, if it is not wrapped, or its wrapping does not end.
    """
    if "think" in unwraps:
        text = _without_thoughts(text)
    if "fence" in unwraps:
        text = _without_fence(text)
    return text


def _without_thoughts(text: str) -> str:
    """Without a leading think block. Some chat templates write its start themselves, so that only its end comes."""
    thoughts, end, answer = text.partition(THINK_END)
    if not end or thoughts.lstrip().startswith(_ANSWER_STARTS):
        return text
    return answer.strip()


def _without_fence(text: str) -> str:
    """Without a fence, if it is around the whole text."""
    inner = text.strip()
    fence = _FENCE.match(inner)
    if fence is None or not inner.endswith(fence[1]) or len(inner) < fence.end() + len(fence[1]):
        return text
    return inner[fence.end() : -len(fence[1])].strip()
