"""`LLMProviderPort` over OpenAI's chat completions, with OpenAI's SDK on its aiohttp transport."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
import openai

from callgate.adapters.providers.http.http_adapter import HTTPAdapter, SDKClient
from callgate.adapters.providers.openai.chat_reply import reply_of
from callgate.adapters.providers.openai.chat_request import request_json
from callgate.adapters.providers.openai.sdk_client import key_headers, sdk_client
from callgate.adapters.providers.openai.sdk_errors import SENT, UNSENT
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest

BASE_URL = "https://api.openai.com/v1"


class OpenAIAdapter(HTTPAdapter):
    """Chat completions of OpenAI, or of a server that speaks the same protocol."""

    base_url = BASE_URL
    path = "/chat/completions"
    unsent_errors = UNSENT
    sent_errors = SENT

    def _new_client(self, base_url: str, http: httpx2.AsyncClient) -> SDKClient:
        return sdk_client(base_url, http)

    def _key_headers(self, key: str | None) -> Mapping[str, str | openai.Omit]:
        return key_headers(key, self._entry.key_header)

    def _request_json(self, request: LLMRequest) -> bytes:
        return request_json(request, self._entry)

    def _reply_of(
        self, body: bytes, headers: Mapping[str, str], request: LLMRequest
    ) -> ProviderReply | Failure:
        return reply_of(body, headers, request, self._entry)
