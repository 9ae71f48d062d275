"""
The bytes of a chat completion's reply as a `ProviderReply`.

Whatever a reply says about its money is read, also where it holds no answer: an error in the body of a 200, no choices,
a choice without a message.

Source: OpenAI API reference, "Create chat completion" (2026-11), and what compatible servers are known to send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from callgate.adapters.providers.openai.refusals import (
    error_in,
    named_status,
    provider_code,
    refusal_of,
    retry_after_s,
)
from callgate.adapters.providers.openai.transport import UNKNOWN_CODING
from callgate.adapters.providers.openai.unwrapping import unwrapped
from callgate.adapters.providers.openai.usage import Told, usage_in
from callgate.domain import bounded_json
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, Ending, ending_of, worst_of
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

NAME_CHARS_MAX = 128
STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl")
STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How an event stream begins, if its Content-Type does not say that it is one (WHATWG HTML, 9.2.5)."""
WRITINGS = ("content", "reasoning_content", "reasoning", "refusal")
"""Where a message may hold what the model wrote."""
USAGE_BYTES_MAX = 4096
_USAGE = re.compile(rb'"usage"\s*+:\s*+(\{)')
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def reply_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """
    Read the body of a reply with a status of success.

    Returns:
        The reply, if it holds an answer or says what it cost. Else a failure: the error it holds, judged as its status
        would be; or of unknown bill, for it was surely made and nobody can read it.
    """
    try:
        fields = _fields(body, headers)
    except bounded_json.TooMuch:
        return _too_much(body, request)
    if isinstance(fields, Failure):
        return fields
    choices = _choices(fields)
    has_text = any(_has_text(choice) or _is_cut(choice) for choice in choices)
    told = usage_in(fields, has_text=has_text)
    failure = _failure(fields, choices, headers, entry)
    if failure is not None:
        failure = replace(failure, billing=_billing(failure, told, has_text=has_text))
        if failure.billing is not Billing.BY_USAGE:
            return failure
    elif told.usage is None and not any(map(_is_answer, choices)):
        return _invalid("the reply has no choices")
    unwraps = entry.unwraps if request.response_schema else ()
    good_endings = entry.good_endings
    ending = worst_of([_name(choice.get("finish_reason")) for choice in choices], good_endings)
    # In OpenAI's words, so that readers who have no catalogue know it too.
    is_good = bool(choices) and ending_of(ending, good_endings) is Ending.GOOD
    return ProviderReply(
        texts=tuple(unwrapped(_content(choice), unwraps) for choice in choices),
        finish_reason=GOOD_ENDING if is_good else ending,
        refusal=next(filter(None, map(_refusal, choices)), None),
        usage=told.usage,
        service_tier=_name(fields.get("service_tier")),
        model=_name(fields.get("model")) or request.model,
        provider_request_id=_name(headers.get("x-request-id")) or _name(fields.get("id")),
        anomalies=told.anomalies,
        failure=failure,
    )


def _fields(body: bytes, headers: Mapping[str, str]) -> dict[str, Any] | Failure:
    try:
        fields = bounded_json.loads(body)
    except bounded_json.TooMuch:
        raise
    except ValueError:
        if _is_stream(body, headers):
            return _invalid("the reply is a stream, which nobody asked for", retryable=False)
        if UNKNOWN_CODING in headers:
            return _invalid("the reply is in a coding that nobody asked for", retryable=False)
        return _invalid("the reply is not JSON")
    if isinstance(fields, list) and len(fields) == 1:
        # Google's endpoint sends its errors so.
        fields = fields[0]
    if not isinstance(fields, dict):
        return _invalid("the reply is not a JSON object")
    return fields


def _too_much(body: bytes, request: LLMRequest) -> ProviderReply | Failure:
    """Nothing of such a reply is read but its usage."""
    failure = Failure(
        "reply_too_large",
        "the reply has more values, or deeper nested ones, than are read",
        False,
        Billing.UNKNOWN,
    )
    told = usage_in({"usage": _last_usage(body)}, has_text=True)
    if told.usage is None:
        return failure
    return ProviderReply(
        texts=(),
        finish_reason=None,
        refusal=None,
        usage=told.usage,
        service_tier=request.service_tier.value,
        model=request.model,
        provider_request_id=None,
        anomalies=told.anomalies,
        failure=replace(failure, billing=Billing.BY_USAGE),
    )


def _last_usage(body: bytes) -> object:
    """The last object of this name, wherever it is. In a text its quotes would be escaped."""
    match = _USAGE.match(body, max(0, body.rfind(b'"usage"')))
    if match is None:
        return None
    text = body[match.start(1) : match.start(1) + USAGE_BYTES_MAX].decode(errors="replace")
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_stream(body: bytes, headers: Mapping[str, str]) -> bool:
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type in STREAMS or body.lstrip().startswith(STREAM_STARTS)


def _choices(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices in their order, which need not be the one they came in."""
    listed = fields.get("choices")
    choices = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if all(type(choice.get("index")) is int for choice in choices):
        choices.sort(key=lambda choice: int(choice["index"]))
    return choices


def _is_answer(choice: Mapping[str, Any]) -> bool:
    return isinstance(choice.get("message"), dict) or _name(choice.get("finish_reason")) is not None


def _failure(
    fields: dict[str, Any],
    choices: Sequence[dict[str, Any]],
    headers: Mapping[str, str],
    entry: ProviderEntry,
) -> Failure | None:
    """The error that a reply holds, of the whole or of one choice."""
    errors = [
        error_in([holder.get("error"), holder.get("errors")]) for holder in (fields, *choices)
    ]
    error = next(filter(None, errors), {})
    if not error and not choices:
        # The body itself may be the error: {"object": "error", "code": 404, "message": ...}.
        error = error_in(fields)
        error = error if named_status(error) else {}
    if not error:
        return None
    # What is said beside the error belongs to it: {"error": "slow down", "code": 429}.
    status = named_status(error) or (None if choices else named_status(fields))
    if status is None:
        failure = _invalid("the reply holds an error")
        wait_s = retry_after_s(headers)
        return replace(failure, provider_code=provider_code(error), retry_after_s=wait_s)
    return refusal_of(status, error, headers, entry, within=200)


def _billing(failure: Failure, told: Told, *, has_text: bool) -> Billing:
    """An error does not undo what it came beside: tokens are billed, and a text was made of some."""
    if told.usage is not None and told.usage.input_tokens + told.usage.output_tokens > 0:
        return Billing.BY_USAGE
    return Billing.UNKNOWN if has_text else failure.billing


def _invalid(message: str, *, retryable: bool = True) -> Failure:
    return Failure("invalid_response", message, retryable, Billing.UNKNOWN)


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _has_text(choice: Mapping[str, Any]) -> bool:
    """Whether the model wrote anything, reasoning and refusal included."""
    message, names = _message(choice), ("text", "refusal", "thinking")
    return any(_joined(message.get(writing), names) for writing in WRITINGS)


def _is_cut(choice: Mapping[str, Any]) -> bool:
    """Whether it reached its bound: then something was written, though it may not be shown."""
    return ending_of(_name(choice.get("finish_reason"))) is Ending.CUT


def _content(choice: Mapping[str, Any]) -> str:
    """The text of an answer, which some servers send in parts."""
    return _joined(_message(choice).get("content"), ("text",))


def _refusal(choice: Mapping[str, Any]) -> str | None:
    """The words of a refusal; empty ones are none."""
    message = _message(choice)
    words = _text(message.get("refusal")) or _joined(message.get("content"), ("refusal",))
    return words if words.strip() else None


def _joined(content: object, names: Sequence[str]) -> str:
    if not isinstance(content, list):
        return (_text(content) or "") if "text" in names else ""
    texts = (_text(part.get(name)) for part in content if isinstance(part, dict) for name in names)
    return "".join(text for text in texts if text is not None)


def _text(text: object) -> str | None:
    """The text with lone surrogates replaced, so that it can be stored: a model may write half a character."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else None


def _name(name: object) -> str | None:
    """A short name in printable ASCII, whatever the provider sent."""
    if not isinstance(name, str) or not name:
        return None
    return _UNPRINTABLE.sub("?", name[:NAME_CHARS_MAX])
