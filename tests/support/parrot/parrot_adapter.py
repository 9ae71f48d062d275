"""`LLMProviderPort` over Parrot's protocol."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from callgate.adapters.providers.http.http_adapter import HTTPAdapter, SDKClient
from callgate.adapters.providers.http.plain_client import SENT, UNSENT, PlainClient
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from tests.support.parrot.parrot_errors import ERRORS
from tests.support.parrot.parrot_reply import reply_of
from tests.support.parrot.parrot_request import request_json


class ParrotAdapter(HTTPAdapter):
    """Parrots repeat what they hear."""

    base_url = "https://parrot.invalid/v1"
    path = "/speak"
    unsent_errors = UNSENT
    sent_errors = SENT

    def _new_client(self, base_url: str, http: httpx2.AsyncClient) -> SDKClient:
        return PlainClient(base_url, http, ERRORS)

    def _key_headers(self, key: str | None) -> Mapping[str, str]:
        return {} if key is None else {"X-Cracker": key}

    def _request_json(self, request: LLMRequest) -> bytes:
        return request_json(request)

    def _reply_of(
        self, body: bytes, headers: Mapping[str, str], request: LLMRequest
    ) -> ProviderReply | Failure:
        return reply_of(body, headers, request, self._entry)
