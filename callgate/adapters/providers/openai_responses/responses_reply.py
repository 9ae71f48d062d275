"""
Reads a response into a `ProviderReply`.

The usage is read even if the response holds no answer: an error in the body of a 200, no output, a status that is not
an end.

Source: OpenAI API reference, "The response object" (2026-11); openai-python 3.54, `types/responses/response.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from callgate.adapters.providers.http.answer_wrapping import unwrapped
from callgate.adapters.providers.http.error_body import error_fields, error_names
from callgate.adapters.providers.http.reply_body import (
    billed,
    failure_in,
    fields_of,
    invalid,
    joined,
    name_of,
    tool_call,
)
from callgate.adapters.providers.http.usage import usage_in
from callgate.adapters.providers.openai_responses.turn_items import block_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, TOOLS_ENDING, Ending, ending_of
from callgate.domain.messages import ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Anomaly, LLMRequest

COMPLETED, INCOMPLETE, FAILED, CANCELLED = "completed", "incomplete", "failed", "cancelled"
UNFINISHED = frozenset({"queued", "in_progress"})
"""The statuses of a response that its provider still works on."""
INCOMPLETE_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why a response is incomplete, in the words of chat completions."""
ABORTED_ENDING = "abort"
POLICY_CODES = frozenset(
    {
        "invalid_prompt",
        "bio_policy",
        "misalignment_policy_violation",
        "image_content_policy_violation",
    }
)
"""Codes of a failed response that the provider's policy refuses, now and later (openai-python 3.54, ResponseError)."""
ASKED_ITEMS = ("message", "reasoning", "function_call")
NO_ANSWER: dict[str, Any] = {"texts": (), "refusal": None}
UNASKED_WORK = (Anomaly.PRICE_UNKNOWN,)
"""Of an answer with other items: tools of the provider's own were used, whose fees are in no price list."""


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
    status, items = _status(fields), _items(fields)
    if status in UNFINISHED:
        return invalid(
            "the response is unfinished: its provider works on, which was not requested",
            retryable=False,
        )
    ending = _ending(status, fields, items)
    has_text = ending_of(ending) is Ending.TRUNCATED or any(map(_has_text, items))
    reported = usage_in(fields, has_text=has_text)
    failure = billed(_failure(status, fields, items, headers, entry), reported, has_text=has_text)
    if failure and failure.billing is not Billing.BY_USAGE:
        return failure
    if failure is None and reported.usage is None and status is None and not items:
        return invalid("the reply is not a response")
    answer = _answer(items, request, entry) if items or status else NO_ANSWER
    # The ledger stores OpenAI's word for it, so that it can be read without the catalogue.
    is_good = ending_of(ending, entry.good_endings) is Ending.GOOD
    is_asked = all(item.get("type") in ASKED_ITEMS for item in items)
    return ProviderReply(
        **answer,
        finish_reason=GOOD_ENDING if is_good else ending,
        usage=reported.usage,
        service_tier=name_of(fields.get("service_tier")),
        model=name_of(fields.get("model")) or request.model,
        provider_request_id=name_of(headers.get("x-request-id")) or name_of(fields.get("id")),
        anomalies=reported.anomalies if is_asked else (*reported.anomalies, *UNASKED_WORK),
        failure=failure,
    )


def _answer(
    items: Sequence[dict[str, Any]], request: LLMRequest, entry: ProviderEntry
) -> dict[str, Any]:
    """What the model said: text, refusal, tool calls, and what the next turn needs."""
    messages = _messages(items)
    text = "".join(joined(item.get("content"), ("text",)) for item in messages)
    refusal = "".join(joined(item.get("content"), ("refusal",)) for item in messages)
    calls = _tool_calls(items)
    block = block_of(items, next(iter(messages), None), calls)
    return {
        "texts": (unwrapped(text, entry.unwraps if request.response_schema else ()),),
        "refusal": refusal if refusal.strip() else None,
        "tool_calls": calls if request.tools else (),
        "reasoning": () if block is None else (block,),
    }


def _status(fields: Mapping[str, Any]) -> str | None:
    """The status of the response in lower case; None if there is none."""
    name = name_of(fields.get("status"))
    return None if name is None else name.lower()


def _items(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items of the output, in their order."""
    listed = fields.get("output")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _failure(
    status: str | None,
    fields: dict[str, Any],
    items: Sequence[dict[str, Any]],
    headers: Mapping[str, str],
    entry: ProviderEntry,
) -> Failure | None:
    """The failure for an error in the reply, or for a response that failed; None if there is neither."""
    if POLICY_CODES & set(error_names(error_fields(fields.get("error")))):
        message = "HTTP 200 with an error: the provider's policy refuses the request"
        return Failure("content_filtered", message, False, Billing.UNKNOWN)
    failure = failure_in(fields, items, headers, entry)
    if failure is None and status == FAILED:
        return invalid("the response failed, and its provider does not say why")
    return failure


def _ending(
    status: str | None, fields: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
) -> str | None:
    """Why the answer ended, in the words of chat completions; None if the response does not say."""
    if status == COMPLETED:
        parts = (name_of(item.get("status")) for item in items)
        # A part that is not complete contradicts the whole: half an answer must not become a result.
        if halves := [part for part in parts if part not in (None, COMPLETED)]:
            return halves[0]
        is_asking = any(item.get("type") == "function_call" for item in items)
        return TOOLS_ENDING if is_asking else GOOD_ENDING
    if status == INCOMPLETE:
        details = fields.get("incomplete_details")
        reason = name_of(details.get("reason")) if isinstance(details, dict) else None
        return INCOMPLETE_REASONS.get(reason or "", reason or INCOMPLETE)
    return ABORTED_ENDING if status in (FAILED, CANCELLED) else status


def _messages(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that hold the answer. A commentary is one only if there is nothing else."""
    messages = [item for item in items if item.get("type") == "message"]
    final = [item for item in messages if item.get("phase") != "commentary"]
    return final or messages


def _tool_calls(items: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """The tools that the model asks for."""
    calls = [item for item in items if item.get("type") == "function_call"]
    return tuple(
        tool_call(call.get("call_id"), call.get("name"), call.get("arguments"), index)
        for index, call in enumerate(calls)
    )


def _has_text(item: Mapping[str, Any]) -> bool:
    """True if the model wrote anything, including reasoning, a refusal and tool calls."""
    if item.get("type") in ("function_call", "reasoning"):
        return True
    return bool(joined(item.get("content"), ("text", "refusal")))
