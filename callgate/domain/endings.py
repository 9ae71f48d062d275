"""
What a finish reason says about an answer: whether it is whole, was cut, was filtered, or broke off.

Only a good ending succeeds. What nobody has met is none: half an answer would be stored as a whole one, and replayed
to every duplicate. Reasons are compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

GOOD_ENDING = "stop"
UNTOLD = "null"
"""
How `good_endings` names a reply without a finish reason.

Microsoft and IBM document it as "in progress or incomplete" (Azure OpenAI, 2024-02; watsonx.ai chat, 2025). So it is
no good ending, unless the catalogue declares that a provider never says how its answers end.
"""


class Ending(IntEnum):
    """How an answer ended; the greater, the worse. Of several choices the worst counts."""

    GOOD = 0
    CUT = 1
    """It reached `max_output_tokens`."""
    BROKEN = 2
    """The provider broke off. It may pass: the same request can succeed."""
    UNKNOWN = 3
    """Nobody knows what it means. The same request can only bring the same."""
    FILTERED = 4


MEANINGS = {
    "length": Ending.CUT,  # OpenAI
    "content_filter": Ending.FILTERED,  # OpenAI
    "error": Ending.BROKEN,  # OpenRouter, Mistral, IBM watsonx.ai (2026-11)
    "abort": Ending.BROKEN,  # vLLM, SGLang (2026-11)
    "insufficient_system_resource": Ending.BROKEN,  # DeepSeek (2026-11)
    "network_error": Ending.BROKEN,  # Z.ai (2026-11)
}
"""The finish reasons with a fixed meaning; no catalogue can declare one of them a good ending."""


def ending_of(finish_reason: str | None, good_endings: Iterable[str] = ()) -> Ending:
    """
    Say what a finish reason means.

    Args:
        good_endings: What the provider's catalogue entry adds to `stop`.
    """
    name = (finish_reason or UNTOLD).casefold()
    if name in MEANINGS:
        return MEANINGS[name]
    is_good = name == GOOD_ENDING or name in {good.casefold() for good in good_endings}
    return Ending.GOOD if is_good else Ending.UNKNOWN


def worst_of(finish_reasons: Iterable[str | None], good_endings: Iterable[str] = ()) -> str | None:
    """The finish reason that counts of several choices: the first of the worst ones, None if there are none."""
    good = tuple(good_endings)
    return max(finish_reasons, key=lambda reason: ending_of(reason, good), default=None)
