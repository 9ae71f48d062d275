"""OpenAI's SDK as a client that adds nothing of its own to a request."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
import openai

from callgate.adapters.providers.http.http_adapter import PLAIN_HEADERS, SDKClient
from callgate.domain.endpoint import KeyHeader


def sdk_client(base_url: str, http: httpx2.AsyncClient) -> SDKClient:
    """The client of one base URL."""
    return _Client(
        api_key="replaced in every request", base_url=base_url, max_retries=0, http_client=http
    )


def key_headers(
    key: str | None, header: KeyHeader = "authorization"
) -> Mapping[str, str | openai.Omit]:
    """The key in the header that the catalogue names. Without a key there is no such header."""
    if key is None or header == "authorization":
        return {"Authorization": openai.omit if key is None else f"Bearer {key}"}
    return {"Authorization": openai.omit, header: key}


class _Client(openai.AsyncOpenAI):
    """The SDK's client with few headers."""

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        return dict(PLAIN_HEADERS)
