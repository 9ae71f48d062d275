"""Removes what some models put around a JSON answer: a block of thoughts before it, a Markdown fence around it."""

from __future__ import annotations

import re
from collections.abc import Collection

THINK_START, THINK_END = "<think>", "</think>"
_ANSWER_STARTS = ("{", "[", '"', "```", "~~~")
_FENCE = re.compile(
    r"""(`{3,}+|~{3,}+)[ \t]*+(?:[A-Za-z0-9_+-]*+[ \t]*+\r?\n|(?:json)?[ \t]*+(?=[{\["]))""",
    re.IGNORECASE,
)
"""Possessive quantifiers: a megabyte of spaces would otherwise backtrack in a trillion ways."""


def unwrapped(text: str, unwraps: Collection[str]) -> str:
    """
    Remove the declared wrappings from an answer.

    Args:
        unwraps: What the provider puts around answers; see `ProviderEntry.unwraps`.

    Returns:
        The text unchanged if it is not wrapped, or if its wrapping has no end.
    """
    if "think" in unwraps:
        text = _without_thoughts(text)
    if "fence" in unwraps:
        text = _without_fence(text)
    return text


def _without_thoughts(text: str) -> str:
    """Remove a leading think block. Its start tag may be missing: some chat templates write the tag themselves."""
    thoughts, end, answer = text.partition(THINK_END)
    if not end or thoughts.lstrip().startswith(_ANSWER_STARTS):
        return text
    return answer.strip()


def _without_fence(text: str) -> str:
    """Remove a Markdown fence that encloses the whole text."""
    inner = text.strip()
    fence = _FENCE.match(inner)
    if fence is None or not inner.endswith(fence[1]) or len(inner) < fence.end() + len(fence[1]):
        return text
    return inner[fence.end() : -len(fence[1])].strip()
