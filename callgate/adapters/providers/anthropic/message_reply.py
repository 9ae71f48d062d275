"""
Reads a message, Anthropic's reply, into a `ProviderReply`.

The usage is read even if the reply holds no answer: an error in the body of a 200, no content, a refusal.

Source: Anthropic API reference, "Create a Message", and the guide "Handling stop reasons" (platform.claude.com,
2026-11-29); `anthropic` 2.14, `types/message`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from callgate.adapters.providers.anthropic.messages_request import PROTOCOL, THINKING
from callgate.adapters.providers.http.answer_wrapping import unwrapped
from callgate.adapters.providers.http.reply_body import (
    billed,
    failure_in,
    fields_of,
    invalid,
    joined,
    name_of,
    text_of,
    tool_call,
)
from callgate.adapters.providers.http.usage import usage_in
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, TOOLS_ENDING, Ending, ending_of
from callgate.domain.messages import ReasoningBlock, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Anomaly, LLMRequest, Usage

REFUSAL = "refusal"
ENDINGS = {
    "end_turn": GOOD_ENDING,
    "stop_sequence": GOOD_ENDING,
    "tool_use": TOOLS_ENDING,
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    REFUSAL: "content_filter",
}
"""Stop reasons in OpenAI's words. `pause_turn` keeps its name: the turn goes on, so it is no good ending."""
STANDARD_GEOS = (None, "", "global", "not_available")
STANDARD_SPEEDS = (None, "", "standard")
"""
Where and how fast inference is priced as listed. It costs more in the US only (1.1 times) and in fast mode.

callgate asks for neither, but a workspace has a default. Source: Anthropic, "Pricing" and "Data residency" (2026-11).
"""


def reply_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """
    Read the body of a reply with a status of success.

    Returns:
        The reply, if it holds an answer or names its usage. Otherwise a failure: an error in the body is classified by
        the status it names; an unreadable reply has an unknown bill, because the provider did the work.
    """
    fields = fields_of(body, headers, request)
    if not isinstance(fields, dict):
        return fields
    listed, reason = fields.get("content"), name_of(fields.get("stop_reason"))
    blocks = [b for b in listed if isinstance(b, dict)] if isinstance(listed, list) else []
    ending = ENDINGS.get((reason or "").casefold(), reason)
    has_text = any(map(_has_text, blocks)) or ending_of(ending) is Ending.TRUNCATED
    reported = usage_in(fields, has_text=has_text)
    failure = billed(failure_in(fields, blocks, headers, entry), reported, has_text=has_text)
    if failure and failure.billing is not Billing.BY_USAGE:
        return failure
    if failure is None and reported.usage is None and not isinstance(listed, list):
        return invalid("the reply has no content")
    # The ledger stores OpenAI's word for it, so that it can be read without the catalogue.
    is_good = isinstance(listed, list) and ending_of(ending, entry.good_endings) is Ending.GOOD
    unwraps = entry.unwraps if request.response_schema else ()
    texts = (unwrapped(joined(blocks, ("text",)), unwraps),) if isinstance(listed, list) else ()
    return ProviderReply(
        texts=texts,
        finish_reason=GOOD_ENDING if is_good else ending,
        refusal=_refusal(fields) if reason == REFUSAL else None,
        usage=_with_long_writes(reported.usage, fields, request),
        service_tier=name_of(_usage(fields).get("service_tier")),
        tool_calls=tuple(_tool_calls(blocks)) if request.tools else (),
        reasoning=tuple(_reasoning(blocks)),
        model=name_of(fields.get("model")) or request.model,
        provider_request_id=name_of(headers.get("request-id")) or name_of(fields.get("id")),
        anomalies=(*reported.anomalies, *_unpriced(_usage(fields))),
        failure=failure,
    )


def _has_text(block: Mapping[str, Any]) -> bool:
    """True if the model wrote anything into this block, including thoughts and a tool call."""
    kind = block.get("type")
    if kind == "tool_use" or kind in THINKING:
        return True
    return bool(text_of(block.get("text")))


def _usage(fields: Mapping[str, Any]) -> dict[str, Any]:
    usage = fields.get("usage")
    return usage if isinstance(usage, dict) else {}


def _with_long_writes(
    usage: Usage | None, fields: Mapping[str, Any], request: LLMRequest
) -> Usage | None:
    """The usage; if it does not say for how long the cache was written, all is written for as long as was asked."""
    if usage is None or _usage(fields).get("cache_creation") or "1h" not in request.cache_marks():
        return usage
    return usage.model_copy(update={"cache_write_1h_tokens": usage.cache_write_tokens})


def _unpriced(usage: Mapping[str, Any]) -> Iterator[Anomaly]:
    """What makes the tokens dearer than any price that is known here."""
    geo, speed = name_of(usage.get("inference_geo")), name_of(usage.get("speed"))
    if geo not in STANDARD_GEOS or speed not in STANDARD_SPEEDS:
        yield Anomaly.PRICE_UNKNOWN


def _refusal(fields: Mapping[str, Any]) -> str:
    """Why the provider's classifiers ended the answer."""
    details = fields.get("stop_details")
    known = details if isinstance(details, dict) else {}
    words = (text_of(known.get(name)) for name in ("explanation", "category"))
    return next((text for text in words if text and text.strip()), REFUSAL)


def _tool_calls(blocks: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
    """The tools that the model asks for."""
    used = [block for block in blocks if block.get("type") == "tool_use"]
    for index, block in enumerate(used):
        yield tool_call(block.get("id"), block.get("name"), block.get("input"), index)


def _reasoning(blocks: Sequence[Mapping[str, Any]]) -> Iterator[ReasoningBlock]:
    """What the model thought: each block as it came, because its signature is checked in the next turn."""
    for block in blocks:
        if block.get("type") in THINKING:
            data = json.dumps(block, ensure_ascii=False, separators=(",", ":"))
            yield ReasoningBlock(
                protocol=PROTOCOL,
                text=text_of(block.get("thinking")) or "",
                data=text_of(data) or "",
            )
