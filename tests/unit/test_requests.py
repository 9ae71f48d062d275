"""Limits of requests, from callers and from the ledger."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError

from callgate.domain.json_text import TEXT_MAX_BYTES
from callgate.domain.requests import STOP_CHARS_MAX, LLMRequest

FIELDS: dict[str, Any] = {
    "org_id": "acme",
    "call_type": "answer",
    "provider": "sim",
    "model": "sim-1",
    "messages": [{"role": "user", "content": "hello"}],
}


def test_a_stored_request_is_read_back() -> None:
    """A request with a thousand messages is within the bounds."""
    request = LLMRequest(**{**FIELDS, "messages": FIELDS["messages"] * 1_000})

    assert LLMRequest.from_stored(request.model_dump_json().encode()) == request


@pytest.mark.parametrize("field", ["unknown", "stop", "response_schema", "messages"])
def test_a_million_values_are_refused_before_parsing(field: str) -> None:
    """Parsed, every thirty megabytes would take a gigabyte."""
    stored = json.dumps({**FIELDS, field: [[]] * 1_000_000}).encode()
    begun = time.process_time()

    with pytest.raises(ValueError, match="more than 50000 values"):
        LLMRequest.from_stored(stored)
    assert time.process_time() - begun < 0.5


def test_a_long_schema_is_refused_before_parsing() -> None:
    """As text it is one value of the request."""
    schema = json.dumps({"enum": [[]] * 1_000_000})
    begun = time.process_time()

    with pytest.raises(ValidationError, match=f"at most {TEXT_MAX_BYTES} bytes"):
        LLMRequest(**FIELDS, response_schema=schema)
    assert time.process_time() - begun < 0.5


def test_a_stop_sequence_has_a_length_limit() -> None:
    """It is not counted as input, so nothing else limits it."""
    LLMRequest(**FIELDS, stop=("x" * STOP_CHARS_MAX,))

    with pytest.raises(ValidationError, match="at most 1000 characters"):
        LLMRequest(**FIELDS, stop=("x" * (STOP_CHARS_MAX + 1),))
