"""`LLMProviderPort` over Anthropic's messages, with Anthropic's SDK on the aiohttp transport of all adapters."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from callgate.adapters.providers.anthropic.message_reply import reply_of
from callgate.adapters.providers.anthropic.messages_request import request_json
from callgate.adapters.providers.anthropic.sdk_client import key_headers, sdk_client
from callgate.adapters.providers.anthropic.sdk_errors import SENT, UNSENT
from callgate.adapters.providers.http.http_adapter import HTTPAdapter, SDKClient
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest


class AnthropicAdapter(HTTPAdapter):
    """Messages of Anthropic, or of a server that speaks the same protocol."""

    base_url = "https://api.anthropic.com"
    path = "/v1/messages"
    unsent_errors = UNSENT
    sent_errors = SENT

    def _new_client(self, base_url: str, http: httpx2.AsyncClient) -> SDKClient:
        return sdk_client(base_url, http)

    def _key_headers(self, key: str | None) -> Mapping[str, object]:
        return key_headers(key)

    def _request_json(self, request: LLMRequest) -> bytes:
        return request_json(request, self._entry)

    def _reply_of(
        self, body: bytes, headers: Mapping[str, str], request: LLMRequest
    ) -> ProviderReply | Failure:
        return reply_of(body, headers, request, self._entry)
