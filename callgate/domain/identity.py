"""
Identity: decides which submissions are the same call.

`input_hash` is SHA-256 over canonical JSON (RFC 8785) of every field that changes the answer. The response schema is
hashed as text, because the order of its keys changes answers. `call_id` is derived from the organisation and the hash:
organisations never share a result, and anyone who knows both can compute the id.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

import rfc8785

from callgate.domain.requests import LLMRequest

HASH_VERSION = 1
"""Increase it when `canonical_bytes` changes, so that an old result never answers a request with a new meaning."""
IN_IDENTITY = frozenset(
    {
        "call_type",
        "provider",
        "model",
        "messages",
        "max_output_tokens",
        "n",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "response_schema",
        "prompt_version",
        "sample_index",
        "service_tier",
        "tools",
        "tool_choice",
        "top_k",
        "reasoning_effort",
        "thinking_tokens",
        "verbosity",
        "prompt_cache_key",
        "extra",
    }
)
"""
Fields of a request that change its answer.

A field that was added after 0.1.0 is left out of the JSON while it has its default (`messages.later_fields`).
Otherwise every hash would change, and results of earlier releases would be paid again.
"""
NOT_IN_IDENTITY = frozenset({"org_id", "document_pages", "on_budget", "trace_id"})
"""Fields of a request that do not change its answer."""


def canonical_bytes(request: LLMRequest) -> bytes:
    """Canonical JSON of the hashed fields and `HASH_VERSION`."""
    fields = request.model_dump(mode="json", include=set(IN_IDENTITY))
    return rfc8785.dumps({"hash_version": HASH_VERSION, **fields})


def input_hash(request: LLMRequest) -> bytes:
    """SHA-256 of `canonical_bytes`: 32 bytes."""
    return hashlib.sha256(canonical_bytes(request)).digest()


def call_id(org_id: str, request_hash: bytes) -> UUID:
    """A UUIDv8: the first 128 bits of SHA-256 over (org_id, input_hash). Source: RFC 9562, 5.8."""
    digest = hashlib.sha256(rfc8785.dumps([org_id, request_hash.hex()])).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | (0x8 << 76)
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=bits)
