"""
Reads what replies of all protocols have in common: a JSON object, perhaps with an error in it, and texts.

A protocol's own reply module reads the answer. The usage is read even if a reply holds no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from callgate.adapters.providers.http.error_body import error_fields, named_status, provider_code
from callgate.adapters.providers.http.own_errors import USUAL_ERRORS, OwnErrors
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.adapters.providers.http.reply_bounds import UNKNOWN_CODING
from callgate.adapters.providers.http.usage import USUAL_COUNTS, OwnCounts, WireUsage, usage_in
from callgate.domain import bounded_json
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.retry_after import retry_after_s

NAME_CHARS_MAX = 128
STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl")
STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""First bytes of an event stream, for streams with a wrong Content-Type (WHATWG HTML, 9.2.5)."""
USAGE_MAX_BYTES = 4096
"""How much of a reply that is too large is parsed as its usage."""
_OBJECT = re.compile(rb"\s*+:\s*+(\{)")
TOOL_NAME_CHARS_MAX = 64
TOOL_CALL_ID_CHARS_MAX = 256
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_NOT_IN_ID = re.compile(r"[^\x21-\x7e]")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def fields_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, own: OwnCounts = USUAL_COUNTS
) -> dict[str, Any] | ProviderReply | Failure:
    """
    Parse the reply as a JSON object.

    Returns:
        Its fields. If it has too many values: what is left of the reply, with its usage. Else why it is no object.
    """
    try:
        fields = bounded_json.loads(body)
    except bounded_json.TooLarge:
        return _too_large(body, request, own)
    except ValueError:
        if _is_stream(body, headers):
            return invalid("the reply is a stream, which was not requested", retryable=False)
        if UNKNOWN_CODING in headers:
            return invalid(
                "the reply has a Content-Encoding that was not requested", retryable=False
            )
        return invalid("the reply is not JSON")
    if isinstance(fields, list) and len(fields) == 1:
        # Google's endpoint wraps its errors in a list.
        fields = fields[0]
    if not isinstance(fields, dict):
        return invalid("the reply is not a JSON object")
    return fields


def _too_large(body: bytes, request: LLMRequest, own: OwnCounts) -> ProviderReply | Failure:
    """The result for a reply with too many values: only its usage is read."""
    failure = Failure(
        "reply_too_large",
        "the reply has too many values, or is nested too deeply",
        False,
        Billing.UNKNOWN,
    )
    # Of a place in another object only the last name is looked for.
    names = (place.rpartition(".")[2] for place in (*own.places, "usage"))
    found = next((usage for name in names if (usage := _last_object(body, name))), None)
    reported = usage_in({"usage": found}, has_text=True, own=own)
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


def _last_object(body: bytes, name: str) -> object:
    """Parse the last object of this name in the text. Inside a JSON string the name's quotes would be escaped."""
    quoted = f'"{name}"'.encode()
    start = body.rfind(quoted)
    match = _OBJECT.match(body, start + len(quoted)) if start >= 0 else None
    if match is None:
        return None
    text = body[match.start(1) : match.start(1) + USAGE_MAX_BYTES].decode(errors="replace")
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_stream(body: bytes, headers: Mapping[str, str]) -> bool:
    """True if the body is an event stream or JSON lines, by its Content-Type or its first bytes."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type in STREAMS or body.lstrip().startswith(STREAM_STARTS)


def failure_in(
    fields: dict[str, Any],
    choices: Sequence[dict[str, Any]],
    headers: Mapping[str, str],
    entry: ProviderEntry,
    own: OwnErrors = USUAL_ERRORS,
) -> Failure | None:
    """
    The failure for an error in the reply; None if there is no error.

    Args:
        choices: The parts of the reply that hold an answer, and may hold an error too.
    """
    fields, headers = own.translated(fields), own.with_wait(headers)
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
        failure = invalid("the reply holds an error")
        wait_s = retry_after_s(headers)
        return replace(failure, provider_code=provider_code(error), retry_after_s=wait_s)
    return refusal_of(status, error, headers, entry, within=200)


def billed(failure: Failure | None, reported: WireUsage, *, has_text: bool) -> Failure | None:
    """
    The failure of a reply, with its bill: tokens that the reply names are billed, and text in it means that some were
    used. Only a failure that is billed by usage has a reply.
    """
    if failure is None:
        return None
    if reported.usage and reported.usage.input_tokens + reported.usage.output_tokens > 0:
        return replace(failure, billing=Billing.BY_USAGE)
    return replace(failure, billing=Billing.UNKNOWN) if has_text else failure


def invalid(message: str, *, retryable: bool = True) -> Failure:
    """The failure of a reply that cannot be read; its bill is unknown."""
    return Failure("invalid_response", message, retryable, Billing.UNKNOWN)


def joined(content: object, names: Sequence[str]) -> str:
    """A text, or the concatenated fields `names` of a list of parts; empty for anything else."""
    if not isinstance(content, list):
        return (text_of(content) or "") if "text" in names else ""
    texts = (
        text_of(part.get(name)) for part in content if isinstance(part, dict) for name in names
    )
    return "".join(text for text in texts if text is not None)


def text_of(text: object) -> str | None:
    """The text with lone surrogates replaced, because they cannot be stored as UTF-8; None for other types."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else None


def name_of(name: object) -> str | None:
    """A non-empty name, cut to `NAME_CHARS_MAX` and with other than printable ASCII as `?`; None for other types."""
    if not isinstance(name, str) or not name:
        return None
    return _UNPRINTABLE.sub("?", name[:NAME_CHARS_MAX])


def tool_call(call_id: object, name: object, arguments: object, index: int) -> ToolCall:
    """
    A tool call of an answer, as far as it can be read.

    Args:
        call_id: A missing one becomes `call_<index>`.
        arguments: JSON text, or the parsed object.
    """
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False, separators=(",", ":"))
    known_id = (
        _NOT_IN_ID.sub("?", call_id[:TOOL_CALL_ID_CHARS_MAX]) if isinstance(call_id, str) else ""
    )
    known_name = _NOT_IN_NAME.sub("_", name[:TOOL_NAME_CHARS_MAX]) if isinstance(name, str) else ""
    return ToolCall(
        id=known_id or f"call_{index}", name=known_name or "_", arguments=text_of(arguments) or ""
    )
