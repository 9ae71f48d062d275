"""Reads a reply: `{"say": text, "why": ending, "model": ..., "usage": {"input_tokens": ..., "output_tokens": ...}}`."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.adapters.providers.http.reply_body import (
    failure_in,
    fields_of,
    invalid,
    name_of,
    text_of,
    too_large,
)
from callgate.adapters.providers.http.usage import usage_in
from callgate.domain.bounded_json import TooLarge
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest

ENDINGS = {"done": "stop", "out of words": "length"}
"""Parrot's endings in OpenAI's words."""


def reply_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """Read the body of a reply with a status of success."""
    try:
        fields = fields_of(body, headers)
    except TooLarge:
        return too_large(body, request)
    if isinstance(fields, Failure):
        return fields
    if failure := failure_in(fields, (), headers, entry):
        return failure
    text = text_of(fields.get("say"))
    if text is None:
        return invalid("the reply says nothing")
    ending = name_of(fields.get("why"))
    reported = usage_in(fields, has_text=bool(text))
    return ProviderReply(
        texts=(text,),
        finish_reason=ENDINGS.get(ending or "", ending),
        refusal=None,
        usage=reported.usage,
        service_tier=None,
        model=name_of(fields.get("model")) or request.model,
        provider_request_id=name_of(headers.get("x-request-id")),
        anomalies=reported.anomalies,
    )
