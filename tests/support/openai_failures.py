"""The failures that exceptions and refusals of OpenAI's SDK become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import httpx2
import openai
import pytest

from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure

REQUEST = httpx2.Request("POST", "http://provider.invalid/v1/chat/completions")


def the_failure(exc: Exception, *, is_sent: bool = True, **entry: Any) -> Failure:
    """The failure of an exception."""
    adapter = OpenAIAdapter("openai", ProviderEntry(**entry), FileCredentials({}, None))
    return adapter.failure_of(exc, is_sent=is_sent)


def refusal(
    status: int,
    error: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    server_errors: Literal["unknown", "unbilled"] = "unknown",
) -> Failure:
    """The failure of a response with this status and `error`, through the SDK's own exception."""
    body = json.dumps({"error": error}).encode()
    response = httpx2.Response(status, headers=headers, content=body, request=REQUEST)
    transport = httpx2.MockTransport(lambda _request: response)
    with (
        httpx2.Client(transport=transport) as http,
        openai.OpenAI(api_key="any", max_retries=0, http_client=http) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.post("/", cast_to=httpx2.Response)
    return the_failure(raised.value, server_errors=server_errors)
