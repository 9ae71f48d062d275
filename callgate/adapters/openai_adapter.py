"""OpenAI chat completions, and every endpoint that speaks the same protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from callgate.adapters.openai_errors import Asked, failure_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.models import LLMRequest, Usage
from callgate.domain.ports import CredentialsPort, ProviderReply
from callgate.domain.retry import Billing, Failure


class OpenAIAdapter:
    def __init__(self, name, entry: ProviderEntry, credentials: CredentialsPort, *, connections_max=2000):
        self.name, self.entry, self.credentials = name, entry, credentials
        self.client = None

    async def complete(self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float):
        key = self.credentials.api_key(self.name, request.org_id) or "none"
        if self.client is None:
            self.client = AsyncOpenAI(api_key="x", base_url=self.entry.base_url, max_retries=0,
                http_client=DefaultAioHttpClient(follow_redirects=False))
        args: dict[str, Any] = {}
        for f in ("temperature", "top_p", "seed"):
            if getattr(request, f) is not None:
                args[f] = getattr(request, f)
        if request.response_schema:
            args["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(request.response_schema), "strict": False}}
        args[self.entry.output_bound_field] = request.max_output_tokens
        try:
            async with asyncio.timeout(timeout_s):
                r = await self.client.with_options(api_key=key).chat.completions.create(
                    model=request.model, messages=[m.model_dump() for m in request.messages], n=request.n,
                    extra_headers={"X-Callgate-Attempt-Id": str(attempt_id)}, timeout=timeout_s, **args)
            u = r.usage
            return ProviderReply(tuple(c.message.content or "" for c in r.choices), r.choices[0].finish_reason, None,
                Usage(input_tokens=u.prompt_tokens, output_tokens=u.completion_tokens) if u else None, None, r.model, r._request_id)
        except TimeoutError:
            return Failure("deadline_exceeded", "deadline", True, Billing.UNKNOWN)
        except Exception as exc:
            return failure_of(exc, Asked(self.entry, ()))

    async def aclose(self) -> None:
        if self.client:
            await self.client.close()
