"""
Identity: which submissions are the same call.

`input_hash` is SHA-256 over RFC 8785 (canonical JSON) of everything that changes the answer. The response schema
enters as text, because its key order changes answers. Tenants never share a result: `call_id` is cut from
SHA-256 over the organisation and the hash, so the key is the id and anyone can compute it.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

import rfc8785

from callgate.domain.requests import LLMRequest

HASH_VERSION = 1
"""Raised when the bytes below change, so that no old result answers for a new meaning."""
NOT_IN_IDENTITY = frozenset({"org_id", "document_pages", "on_budget", "trace_id"})


def canonical_bytes(request: LLMRequest) -> bytes:
    """The bytes whose hash is the call's identity within its organisation."""
    fields = request.model_dump(mode="json", exclude=set(NOT_IN_IDENTITY))
    return rfc8785.dumps({"hash_version": HASH_VERSION, **fields})


def input_hash(request: LLMRequest) -> bytes:
    """SHA-256 of `canonical_bytes`: 32 bytes."""
    return hashlib.sha256(canonical_bytes(request)).digest()


def call_id(org_id: str, request_hash: bytes) -> UUID:
    """A UUIDv8 from SHA-256 over (org_id, input_hash). Source: RFC 9562, 5.8."""
    digest = hashlib.sha256(rfc8785.dumps([org_id, request_hash.hex()])).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | (0x8 << 76)
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=bits)
