"""`LLMProviderPort` over OpenAI's Responses, with OpenAI's SDK on its aiohttp transport."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.adapters.providers.openai_responses.responses_reply import reply_of
from callgate.adapters.providers.openai_responses.responses_request import request_json
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest


class OpenAIResponsesAdapter(OpenAIAdapter):
    """Responses of OpenAI, or of a server that speaks the same protocol. Client, keys and errors are those of chat."""

    path = "/responses"

    def _request_json(self, request: LLMRequest) -> bytes:
        return request_json(request, self._entry)

    def _reply_of(
        self, body: bytes, headers: Mapping[str, str], request: LLMRequest
    ) -> ProviderReply | Failure:
        return reply_of(body, headers, request, self._entry)
