"""
Writes the JSON body of a chat completion's request. `chat_reply` reads the reply.

Source: OpenAI API reference, "Create chat completion", and the guide "Structured outputs" (2026-11).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from callgate.adapters.providers.openai.strict_schema import allows_strict
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.requests import LLMRequest

SCHEMA_NAME = "response"
"""The name of every response schema. It is constant because its tokens are counted as input."""
SCHEMAS_CACHED_MAX = 64
FINE_TUNED = "ft:"
"""Prefix of the names of fine-tuned models."""


def request_json(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON in UTF-8.

    Only fields that the request sets are sent. The response schema is sent as the caller's own text, because the order
    of its keys changes answers.
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
    """The JSON text of `response_format`, with `strict` wherever OpenAI accepts it."""
    strict = "true" if allows_strict(json.loads(schema), fine_tuned=fine_tuned) else "false"
    return (
        f'{{"type":"json_schema","json_schema":'
        f'{{"name":"{SCHEMA_NAME}","strict":{strict},"schema":{schema}}}}}'
    )
