"""Anthropic's SDK as a client that adds nothing of its own to a request."""

from __future__ import annotations

from collections.abc import Mapping

import anthropic
import httpx2
from anthropic import omit

from callgate.adapters.providers.http.http_adapter import PLAIN_HEADERS, SDKClient

API_VERSION = "2023-06-01"
"""
The version of the protocol, whatever the SDK's own is.

The next one, 2026-10-21, refuses `temperature`, `top_p` and `top_k` and changes nothing else that is sent here. Also,
compatible servers know this one. Source: https://platform.claude.com/docs/en/api/versioning (2026-11-29).
"""
SDK_HEADERS = ("x-stainless-timeout", "x-stainless-retry-count", "x-stainless-read-timeout")


def sdk_client(base_url: str, http: httpx2.AsyncClient) -> SDKClient:
    """The client of one base URL."""
    return _Client(base_url, http)


def key_headers(key: str | None) -> Mapping[str, object]:
    """The key and the protocol's version, and none of the headers that the SDK would add to each request."""
    return {
        "X-Api-Key": omit if key is None else key,
        "Authorization": omit,
        "Anthropic-Version": API_VERSION,
        **dict.fromkeys(SDK_HEADERS, omit),
    }


class _Client(anthropic.AsyncAnthropic):
    """The SDK's client with few headers. Its variables of the environment have no effect."""

    def __init__(self, base_url: str, http: httpx2.AsyncClient) -> None:
        super().__init__(
            api_key="replaced in every request",
            base_url=base_url,
            max_retries=0,
            http_client=http,
            open_telemetry=False,
        )
        # The SDK takes them from ANTHROPIC_CUSTOM_HEADERS, and lets nothing replace them.
        self._custom_headers = {}

    @property
    def default_headers(self) -> dict[str, str | anthropic.Omit]:
        return dict(PLAIN_HEADERS)
