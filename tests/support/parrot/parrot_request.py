"""Writes a request: `{"model": ..., "hear": [[role, text], ...], "words_max": ...}`."""

from __future__ import annotations

import json
from typing import Any

from callgate.domain.requests import LLMRequest


def request_json(request: LLMRequest) -> bytes:
    """The request as JSON in UTF-8. Only fields that it sets are sent."""
    fields: dict[str, Any] = {
        "model": request.model,
        "hear": [[message.role, message.content] for message in request.messages],
        "words_max": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()
