"""
The bytes of OpenAI's chat completions: an `LLMRequest` as a request body, and a reply's body as a `ProviderReply`.

Source: OpenAI API reference, "Create chat completion", and the guide "Structured outputs" (2026-11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from callgate.adapters.openai_redaction import Redactor
from callgate.adapters.openai_strict_schema import allows_strict
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.models import LLMRequest, Usage
from callgate.domain.ports import ProviderReply
from callgate.domain.retry import Billing, Failure

SCHEMA_NAME = "response"
"""What every response schema is called; the name is counted as input, so it must not vary."""
TOKENS_MAX = 2**31 - 1
"""A larger count is a mistake of the provider's."""
NAME_CHARS_MAX = 128
SCHEMAS_CACHED_MAX = 64
FINE_TUNED = "ft:"
"""How the names of fine-tuned models begin."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def request_body(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON.

    Only what the request sets is sent. The response schema goes out as the very text it came as: the order of its
    keys changes answers.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        entry.output_bound_field: request.max_output_tokens,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop or None,
        "service_tier": request.service_tier.value if entry.sends_service_tier else None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    body = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if request.response_schema is not None:
        fine_tuned = request.model.startswith(FINE_TUNED)
        response_format = _response_format(request.response_schema, fine_tuned=fine_tuned)
        body = f'{body[:-1]},"response_format":{response_format}}}'
    return body.encode()


@lru_cache(maxsize=SCHEMAS_CACHED_MAX)
def _response_format(schema: str, *, fine_tuned: bool) -> str:
    strict = "true" if allows_strict(json.loads(schema), fine_tuned=fine_tuned) else "false"
    return (
        f'{{"type":"json_schema","json_schema":'
        f'{{"name":"{SCHEMA_NAME}","strict":{strict},"schema":{schema}}}}}'
    )


def reply_of(body: bytes, headers: Mapping[str, str], model: str) -> ProviderReply | Failure:
    """
    Read the body of a reply with a status of success.

    Args:
        model: What to name if the reply does not say which model answered.

    Returns:
        The reply, or a failure of unknown bill: it was surely made, and nobody can read it.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return _invalid("the reply is not JSON")
    if not isinstance(fields, dict):
        return _invalid("the reply is not a JSON object")
    choices = fields.get("choices")
    if not isinstance(choices, list) or not choices or not all(map(_is_choice, choices)):
        return _invalid("the reply has no choices", fields.get("error"))
    first = choices[0]
    return ProviderReply(
        texts=tuple(_content(choice["message"].get("content")) for choice in choices),
        finish_reason=_name(first.get("finish_reason")),
        refusal=_text(first["message"].get("refusal")),
        usage=usage_of(fields.get("usage")),
        service_tier=_name(fields.get("service_tier")),
        model=_name(fields.get("model")) or model,
        provider_request_id=_name(headers.get("x-request-id")) or _name(fields.get("id")),
    )


def _invalid(message: str, error: object = None) -> Failure:
    said, redactor = error if isinstance(error, dict) else {}, Redactor(())
    return Failure(
        code="invalid_response",
        message=message,
        retryable=True,
        billing=Billing.UNKNOWN,
        provider_code=redactor.identifier(said.get("code"))
        or redactor.identifier(said.get("type")),
    )


def _is_choice(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _content(content: object) -> str:
    """The text of an answer, which some servers send in parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (_text(part.get("text")) for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if text is not None)


def _text(text: object) -> str | None:
    """The text with lone surrogates replaced, so that it can be stored: a model may write half a character."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else None


def _name(name: object) -> str | None:
    """A short name in printable ASCII, whatever the provider sent."""
    if not isinstance(name, str) or not name:
        return None
    return _UNPRINTABLE.sub("?", name[:NAME_CHARS_MAX])


def usage_of(usage: object) -> Usage | None:
    """
    Read the tokens a reply names.

    Returns:
        The usage, or None if it is missing or cannot be true: a count that is no whole number or negative, a part
        larger than its whole, or a total that is not the sum.
    """
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    named = (
        usage.get("prompt_tokens"),
        _part(read, "cached_tokens"),
        _part(read, "cache_write_tokens"),
        usage.get("completion_tokens"),
        _part(written, "reasoning_tokens"),
    )
    counts = [count for count in named if type(count) is int and 0 <= count <= TOKENS_MAX]
    if len(counts) < len(named):
        return None
    input_tokens, cached, cache_write, output_tokens, reasoning = counts
    if cached + cache_write > input_tokens or reasoning > output_tokens:
        return None
    if usage.get("total_tokens") not in (None, input_tokens + output_tokens):
        return None
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=cache_write,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
    )


def _part(details: object, name: str) -> object:
    """One part of a count: 0 if the provider does not split it up."""
    if details is None:
        return 0
    part = details.get(name) if isinstance(details, dict) else details
    return 0 if part is None else part
