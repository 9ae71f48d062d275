"""Reads the answer to a response schema that was asked for with a tool or a message: `domain/structured.py`."""

from __future__ import annotations

from dataclasses import replace

from callgate.adapters.providers.http.answer_wrapping import unwrapped
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, TOOLS_ENDING
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import RESPONSE_TOOL


def answered(
    answer: ProviderReply | Failure, request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """
    The reply as if its provider had a field for response schemas.

    Args:
        request: As the caller wrote it.
    """
    if (
        request.response_schema is None
        or entry.json_schema == "native"
        or isinstance(answer, Failure)
    ):
        return answer
    if entry.json_schema == "tool":
        answer = _without_tool(answer)
    return replace(answer, texts=tuple(unwrapped(text, entry.unwraps) for text in answer.texts))


def _without_tool(reply: ProviderReply) -> ProviderReply:
    """The arguments of the forced tool as the answer. A model that answers in words instead is checked by its words."""
    arguments = (call.arguments for call in reply.tool_calls if call.name == RESPONSE_TOOL)
    words = reply.texts[0] if reply.texts else ""
    has_called = (reply.finish_reason or "").casefold() == TOOLS_ENDING
    return replace(
        reply,
        texts=(next(arguments, words),) if reply.texts else (),
        tool_calls=(),
        finish_reason=GOOD_ENDING if has_called else reply.finish_reason,
    )
