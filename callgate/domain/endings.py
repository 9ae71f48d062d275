"""
What a finish reason says about an answer: complete, truncated, aborted, filtered or unknown.

Only a good ending is a success. An unknown finish reason is a failure: half an answer would be stored as a complete one
and replayed to every duplicate. Case is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

GOOD_ENDING = "stop"
TOOLS_ENDING = "tool_calls"
"""The model asks for tools. It is a good ending only where the request had tools."""
NO_FINISH_REASON = "null"
"""
How the catalogue's `good_endings` writes a missing finish reason.

Microsoft and IBM document it as "in progress or incomplete" (Azure OpenAI, 2024-02; watsonx.ai chat, 2025). So it is a
failure unless the catalogue declares that the provider never sends a finish reason.
"""


class Ending(IntEnum):
    """How an answer ended, from best to worst. Of several choices the worst counts."""

    GOOD = 0
    TRUNCATED = 1
    """It reached `max_output_tokens`."""
    ABORTED = 2
    """The provider stopped early. The same request can succeed later."""
    UNKNOWN = 3
    """The finish reason is not known. A retry would bring the same."""
    FILTERED = 4
    """A content filter removed the answer or a part of it."""


MEANINGS = {
    "length": Ending.TRUNCATED,  # OpenAI
    "content_filter": Ending.FILTERED,  # OpenAI
    "error": Ending.ABORTED,  # OpenRouter, Mistral, IBM watsonx.ai (2026-11)
    "abort": Ending.ABORTED,  # vLLM, SGLang (2026-11)
    "insufficient_system_resource": Ending.ABORTED,  # DeepSeek (2026-11)
    "network_error": Ending.ABORTED,  # Z.ai (2026-11)
}
"""Finish reasons with a fixed meaning. A catalogue cannot declare one of them good."""


def ending_of(finish_reason: str | None, good_endings: Iterable[str] = ()) -> Ending:
    """
    Classify a finish reason.

    Args:
        good_endings: Finish reasons that are as good as `stop`; see `ProviderEntry.good_endings`.
    """
    name = (finish_reason or NO_FINISH_REASON).casefold()
    if name in MEANINGS:
        return MEANINGS[name]
    is_good = name == GOOD_ENDING or name in {good.casefold() for good in good_endings}
    return Ending.GOOD if is_good else Ending.UNKNOWN


def worst_of(finish_reasons: Iterable[str | None], good_endings: Iterable[str] = ()) -> str | None:
    """The worst finish reason of several choices, the first of equal ones; None if there are no choices."""
    good = tuple(good_endings)
    return max(finish_reasons, key=lambda reason: ending_of(reason, good), default=None)
