"""
Reads a chat completion's reply into a `ProviderReply`.

The usage is read even if the reply holds no answer: an error in the body of a 200, no choices, a choice without a
message.

Source: OpenAI API reference, "Create chat completion" (2026-11), and what compatible servers are known to send.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

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
from callgate.adapters.providers.openai.chat_request import PROTOCOL
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, Ending, ending_of, worst_of
from callgate.domain.messages import ReasoningBlock, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
"""Fields of a message that may hold text of the model."""


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
    choices = _choices(fields)
    has_text = any(_has_text(choice) or _is_cut(choice) for choice in choices)
    reported = usage_in(fields, has_text=has_text)
    failure = billed(failure_in(fields, choices, headers, entry), reported, has_text=has_text)
    if failure and failure.billing is not Billing.BY_USAGE:
        return failure
    if failure is None and reported.usage is None and not any(map(_is_answer, choices)):
        return invalid("the reply has no choices")
    unwraps = entry.unwraps if request.response_schema else ()
    good_endings = entry.good_endings
    ending = worst_of([name_of(choice.get("finish_reason")) for choice in choices], good_endings)
    # The ledger stores OpenAI's word for it, so that it can be read without the catalogue.
    is_good = bool(choices) and ending_of(ending, good_endings) is Ending.GOOD
    return ProviderReply(
        texts=tuple(unwrapped(_content(choice), unwraps) for choice in choices),
        finish_reason=GOOD_ENDING if is_good else ending,
        refusal=next(filter(None, map(_refusal, choices)), None),
        usage=reported.usage,
        service_tier=entry.tier_of(name_of(fields.get("service_tier"))),
        tool_calls=tuple(_tool_calls(choices[0])) if request.tools and choices else (),
        reasoning=tuple(_reasoning(choices[0], entry)) if choices else (),
        model=name_of(fields.get("model")) or request.model,
        provider_request_id=name_of(headers.get("x-request-id")) or name_of(fields.get("id")),
        anomalies=reported.anomalies,
        failure=failure,
    )


def _choices(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices by their `index`; a reply may list them in another order."""
    listed = fields.get("choices")
    choices = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if all(type(choice.get("index")) is int for choice in choices):
        choices.sort(key=lambda choice: int(choice["index"]))
    return choices


def _is_answer(choice: Mapping[str, Any]) -> bool:
    """True if the choice has a message or a finish reason."""
    return (
        isinstance(choice.get("message"), dict) or name_of(choice.get("finish_reason")) is not None
    )


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _has_text(choice: Mapping[str, Any]) -> bool:
    """True if the model wrote anything, including reasoning and a refusal."""
    message, names = _message(choice), ("text", "refusal", "thinking")
    return bool(message.get("tool_calls")) or any(
        joined(message.get(field), names) for field in TEXT_FIELDS
    )


def _is_cut(choice: Mapping[str, Any]) -> bool:
    """True if the answer reached its token limit: then tokens were used, even if no text is shown."""
    return ending_of(name_of(choice.get("finish_reason"))) is Ending.TRUNCATED


def _content(choice: Mapping[str, Any]) -> str:
    """The text of an answer. Some servers send it as a list of parts."""
    return joined(_message(choice).get("content"), ("text",))


def _tool_calls(choice: Mapping[str, Any]) -> Iterator[ToolCall]:
    """The tools that the model asks for. Servers are known to leave out ids, and to send arguments as an object."""
    listed = _message(choice).get("tool_calls")
    for index, call in enumerate(listed if isinstance(listed, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield tool_call(call.get("id"), function.get("name"), function.get("arguments"), index)


def _reasoning(choice: Mapping[str, Any], entry: ProviderEntry) -> Iterator[ReasoningBlock]:
    """What the model thought, in the fields that the catalogue names for this server."""
    message = _message(choice)
    found = {name: message[name] for name in entry.reasoning_fields if message.get(name)}
    if found:
        text = next((value for value in found.values() if isinstance(value, str)), "")
        data = json.dumps(found, separators=(",", ":"))
        yield ReasoningBlock(protocol=PROTOCOL, text=text_of(text) or "", data=data)


def _refusal(choice: Mapping[str, Any]) -> str | None:
    """The text of the model's refusal; None if it is missing or blank."""
    message = _message(choice)
    words = text_of(message.get("refusal")) or joined(message.get("content"), ("refusal",))
    return words if words.strip() else None
