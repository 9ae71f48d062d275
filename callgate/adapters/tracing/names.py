"""
The names of spans and attributes: GenAI semantic conventions, and callgate's own under `callgate.`.

The GenAI names are in development. They are those of `opentelemetry-semantic-conventions` 0.66b2, which a test
compares. That package marks them as moved to https://github.com/open-telemetry/semantic-conventions-genai. So they are
written here and nowhere else, and callgate does not need the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from callgate.domain.messages import Message
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest

SUBMIT = "callgate.submit"
CALL = "callgate.call"
SETTLE = "callgate.settle"
LINK = "callgate.link"
CHAT = "chat"

ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_SEED = "gen_ai.request.seed"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"

PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_v1": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""What the conventions call a provider, where callgate's preset has another name. All others keep their name."""
CONTENT_CHARS_MAX = 65_536
"""How much of the messages of one request, and of its reply, a span may hold."""

Attributes = dict[str, Any]


def of_request(request: LLMRequest, preset: str) -> Attributes:
    """What is asked for, without content."""
    return _without_none(
        {
            OPERATION: CHAT,
            PROVIDER: PROVIDERS.get(preset, preset),
            REQUEST_MODEL: request.model,
            REQUEST_MAX_TOKENS: request.max_output_tokens,
            REQUEST_CHOICES: request.n if request.n != 1 else None,
            REQUEST_TEMPERATURE: request.temperature,
            REQUEST_TOP_P: request.top_p,
            REQUEST_TOP_K: request.top_k,
            REQUEST_SEED: request.seed,
            OUTPUT_TYPE: "json" if request.response_schema else None,
        }
    )


def of_reply(reply: ProviderReply) -> Attributes:
    """What came back, without content."""
    usage = reply.usage
    tokens = (
        {
            INPUT_TOKENS: usage.input_tokens,
            OUTPUT_TOKENS: usage.output_tokens,
            CACHE_READ_TOKENS: usage.cached_input_tokens or None,
            CACHE_WRITE_TOKENS: usage.cache_write_tokens or None,
            REASONING_TOKENS: usage.reasoning_tokens or None,
        }
        if usage
        else {}
    )
    reasons = [reply.finish_reason] if reply.finish_reason else None
    return _without_none({RESPONSE_MODEL: reply.model, RESPONSE_FINISH_REASONS: reasons, **tokens})


def input_messages(messages: Iterable[Message]) -> str:
    """The conversation as the conventions write it: JSON, cut to `CONTENT_CHARS_MAX` characters of text."""
    room = _Room()
    return json.dumps([_message(m.role, m.content, room) for m in messages])


def output_messages(reply: ProviderReply) -> str:
    """The answer as the conventions write it, cut like `input_messages`."""
    room, reason = _Room(), reply.finish_reason or "unknown"
    return json.dumps(
        [{**_message("assistant", text, room), "finish_reason": reason} for text in reply.texts]
    )


class _Room:
    """How many characters of content there is still room for."""

    def __init__(self) -> None:
        self.left_chars = CONTENT_CHARS_MAX

    def cut(self, text: str) -> str:
        """As much of a text as there is room for."""
        kept = text[: self.left_chars]
        self.left_chars -= len(kept)
        return kept


def _message(role: str, content: str, room: _Room) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": room.cut(content)}]}


def _without_none(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}
