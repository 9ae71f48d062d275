"""OpenAI's SDK as a client that adds nothing of its own to a request."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
import openai

from callgate.adapters.providers.http.http_adapter import PLAIN_HEADERS, SDKClient


def sdk_client(base_url: str, http: httpx2.AsyncClient) -> SDKClient:
    """The client of one base URL."""
    return _Client(
        api_key="replaced in every request", base_url=base_url, max_retries=0, http_client=http
    )


def key_headers(key: str | None) -> Mapping[str, str | openai.Omit]:
    """Without a key there is no Authorization."""
    return {"Authorization": openai.omit if key is None else f"Bearer {key}"}


class _Client(openai.AsyncOpenAI):
    """The SDK's client with few headers."""

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        return dict(PLAIN_HEADERS)
