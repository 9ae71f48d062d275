"""
Reads a chat completion's reply into a `ProviderReply`.

The usage is read even if the reply holds no answer: an error in the body of a 200, no choices, a choice without a
message.

Source: OpenAI API reference, "Create chat completion" (2026-11), and what compatible servers are known to send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from callgate.adapters.providers.http.error_body import error_fields, named_status, provider_code
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.adapters.providers.http.reply_bounds import UNKNOWN_CODING
from callgate.adapters.providers.http.retry_after import retry_after_s
from callgate.adapters.providers.openai.answer_wrapping import unwrapped
from callgate.adapters.providers.openai.usage import WireUsage, usage_in
from callgate.domain import bounded_json
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, Ending, ending_of, worst_of
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

NAME_CHARS_MAX = 128
STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl")
STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""First bytes of an event stream, for streams with a wrong Content-Type (WHATWG HTML, 9.2.5)."""
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
"""Fields of a message that may hold text of the model."""
USAGE_BYTES_MAX = 4096
"""How much of a reply that is too large is parsed as its usage."""
_USAGE = re.compile(rb'"usage"\s*+:\s*+(\{)')
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def reply_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """
    Read the body of a reply with a status of success.

    Returns:
        The reply, if it holds an answer or names its usage. Otherwise a failure: an error in the body is classified by
        the status it names; an unreadable reply has an unknown bill, because the provider did the work.
    """
    try:
        fields = _fields(body, headers)
    except bounded_json.TooLarge:
        return _too_large(body, request)
    if isinstance(fields, Failure):
        return fields
    choices = _choices(fields)
    has_text = any(_has_text(choice) or _is_cut(choice) for choice in choices)
    reported = usage_in(fields, has_text=has_text)
    failure = _failure(fields, choices, headers, entry)
    if failure is not None:
        failure = replace(failure, billing=_billing(failure, reported, has_text=has_text))
        if failure.billing is not Billing.BY_USAGE:
            return failure
    elif reported.usage is None and not any(map(_is_answer, choices)):
        return _invalid("the reply has no choices")
    unwraps = entry.unwraps if request.response_schema else ()
    good_endings = entry.good_endings
    ending = worst_of([_name(choice.get("finish_reason")) for choice in choices], good_endings)
    # The ledger stores OpenAI's word for it, so that it can be read without the catalogue.
    is_good = bool(choices) and ending_of(ending, good_endings) is Ending.GOOD
    return ProviderReply(
        texts=tuple(unwrapped(_content(choice), unwraps) for choice in choices),
        finish_reason=GOOD_ENDING if is_good else ending,
        refusal=next(filter(None, map(_refusal, choices)), None),
        usage=reported.usage,
        service_tier=_name(fields.get("service_tier")),
        model=_name(fields.get("model")) or request.model,
        provider_request_id=_name(headers.get("x-request-id")) or _name(fields.get("id")),
        anomalies=reported.anomalies,
        failure=failure,
    )


def _fields(body: bytes, headers: Mapping[str, str]) -> dict[str, Any] | Failure:
    """
    Parse the reply as a JSON object, or say why it is none.

    Raises:
        TooLarge: It has too many values.
    """
    try:
        fields = bounded_json.loads(body)
    except bounded_json.TooLarge:
        raise
    except ValueError:
        if _is_stream(body, headers):
            return _invalid("the reply is a stream, which was not requested", retryable=False)
        if UNKNOWN_CODING in headers:
            return _invalid(
                "the reply has a Content-Encoding that was not requested", retryable=False
            )
        return _invalid("the reply is not JSON")
    if isinstance(fields, list) and len(fields) == 1:
        # Google's endpoint wraps its errors in a list.
        fields = fields[0]
    if not isinstance(fields, dict):
        return _invalid("the reply is not a JSON object")
    return fields


def _too_large(body: bytes, request: LLMRequest) -> ProviderReply | Failure:
    """The result for a reply with too many values: only its usage is read."""
    failure = Failure(
        "reply_too_large",
        "the reply has too many values, or is nested too deeply",
        False,
        Billing.UNKNOWN,
    )
    reported = usage_in({"usage": _last_usage(body)}, has_text=True)
    if reported.usage is None:
        return failure
    return ProviderReply(
        texts=(),
        finish_reason=None,
        refusal=None,
        usage=reported.usage,
        service_tier=request.service_tier.value,
        model=request.model,
        provider_request_id=None,
        anomalies=reported.anomalies,
        failure=replace(failure, billing=Billing.BY_USAGE),
    )


def _last_usage(body: bytes) -> object:
    """Parse the last `"usage"` object in the text. Inside a JSON string its quotes would be escaped."""
    match = _USAGE.match(body, max(0, body.rfind(b'"usage"')))
    if match is None:
        return None
    text = body[match.start(1) : match.start(1) + USAGE_BYTES_MAX].decode(errors="replace")
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_stream(body: bytes, headers: Mapping[str, str]) -> bool:
    """True if the body is an event stream or JSON lines, by its Content-Type or its first bytes."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type in STREAMS or body.lstrip().startswith(STREAM_STARTS)


def _choices(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices by their `index`; a reply may list them in another order."""
    listed = fields.get("choices")
    choices = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if all(type(choice.get("index")) is int for choice in choices):
        choices.sort(key=lambda choice: int(choice["index"]))
    return choices


def _is_answer(choice: Mapping[str, Any]) -> bool:
    """True if the choice has a message or a finish reason."""
    return isinstance(choice.get("message"), dict) or _name(choice.get("finish_reason")) is not None


def _failure(
    fields: dict[str, Any],
    choices: Sequence[dict[str, Any]],
    headers: Mapping[str, str],
    entry: ProviderEntry,
) -> Failure | None:
    """The failure for an error in the reply or in one of its choices; None if there is no error."""
    errors = [
        error_fields([holder.get("error"), holder.get("errors")]) for holder in (fields, *choices)
    ]
    error = next(filter(None, errors), {})
    if not error and not choices:
        # The body itself may be the error: {"object": "error", "code": 404, "message": ...}.
        error = error_fields(fields)
        error = error if named_status(error) else {}
    if not error:
        return None
    # A status may stand beside the error: {"error": "slow down", "code": 429}.
    status = named_status(error) or (None if choices else named_status(fields))
    if status is None:
        failure = _invalid("the reply holds an error")
        wait_s = retry_after_s(headers)
        return replace(failure, provider_code=provider_code(error), retry_after_s=wait_s)
    return refusal_of(status, error, headers, entry, within=200)


def _billing(failure: Failure, reported: WireUsage, *, has_text: bool) -> Billing:
    """The bill of a reply with an error: tokens that it names are billed, and text in it means that some were used."""
    if (
        reported.usage is not None
        and reported.usage.input_tokens + reported.usage.output_tokens > 0
    ):
        return Billing.BY_USAGE
    return Billing.UNKNOWN if has_text else failure.billing


def _invalid(message: str, *, retryable: bool = True) -> Failure:
    """The failure of a reply that cannot be read; its bill is unknown."""
    return Failure("invalid_response", message, retryable, Billing.UNKNOWN)


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _has_text(choice: Mapping[str, Any]) -> bool:
    """True if the model wrote anything, including reasoning and a refusal."""
    message, names = _message(choice), ("text", "refusal", "thinking")
    return any(_joined(message.get(field), names) for field in TEXT_FIELDS)


def _is_cut(choice: Mapping[str, Any]) -> bool:
    """True if the answer reached its token limit: then tokens were used, even if no text is shown."""
    return ending_of(_name(choice.get("finish_reason"))) is Ending.TRUNCATED


def _content(choice: Mapping[str, Any]) -> str:
    """The text of an answer. Some servers send it as a list of parts."""
    return _joined(_message(choice).get("content"), ("text",))


def _refusal(choice: Mapping[str, Any]) -> str | None:
    """The text of the model's refusal; None if it is missing or blank."""
    message = _message(choice)
    words = _text(message.get("refusal")) or _joined(message.get("content"), ("refusal",))
    return words if words.strip() else None


def _joined(content: object, names: Sequence[str]) -> str:
    """A text, or the concatenated fields `names` of a list of parts; empty for anything else."""
    if not isinstance(content, list):
        return (_text(content) or "") if "text" in names else ""
    texts = (_text(part.get(name)) for part in content if isinstance(part, dict) for name in names)
    return "".join(text for text in texts if text is not None)


def _text(text: object) -> str | None:
    """The text with lone surrogates replaced, because they cannot be stored as UTF-8; None for other types."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else None


def _name(name: object) -> str | None:
    """A non-empty name, cut to `NAME_CHARS_MAX` and with other than printable ASCII as `?`; None for other types."""
    if not isinstance(name, str) or not name:
        return None
    return _UNPRINTABLE.sub("?", name[:NAME_CHARS_MAX])
