"""
`LLMProviderPort` over OpenAI's protocol, with OpenAI's SDK on its aiohttp transport.

One attempt is one HTTP request. The SDK's retries are off and redirects are not followed. aiohttp repeats a request on
a dead pooled connection only for idempotent methods, and POST is not idempotent. Requests and replies bypass the SDK's
Pydantic models, which would cost as much CPU as the rest of the request.

Environment: only the transport's own variables count (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE,
SSL_CERT_DIR), because many companies have no other way out. `http/environment.py` checks them when a worker starts. The
SDK's OPENAI_* variables are ignored: the catalogue and the credentials say where a call goes and who pays for it.

Isolation: nothing that a provider sends is kept for the next request, neither a cookie nor an address. Replies have
limits each and together, and each provider's replies are read in its own event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import httpx2
import openai

from callgate.adapters.providers.http.client import http_client, request_timeout
from callgate.adapters.providers.http.failures import NoClient
from callgate.adapters.providers.http.provider_loop import ProviderLoop
from callgate.adapters.providers.http.rate_limit_headers import learned_limits
from callgate.adapters.providers.http.request_body import RequestBody
from callgate.adapters.providers.openai.chat_reply import reply_of
from callgate.adapters.providers.openai.chat_request import request_json
from callgate.adapters.providers.openai.sdk_errors import failure_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.ports import CredentialsPort
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

ATTEMPT_HEADER = "X-Callgate-Attempt-Id"
BASE_URL = "https://api.openai.com/v1"
OVERTIME_S = 1.0
"""How long after its deadline an attempt is abandoned here, if the provider's loop is too busy to end it."""
CLOSE_MAX_S = 5.0
MISSING_CREDENTIALS = Failure(
    "missing_credentials",
    "no API key for the provider: set CALLGATE_WORKER__CREDENTIALS__<PROVIDER>, or put a file named after it into"
    " CALLGATE_WORKER__CREDENTIALS_DIR",
    False,
    Billing.UNBILLED,
)
TOO_LATE = Failure("timeout", "no time was left to send the request", True, Billing.UNBILLED)


class OpenAIAdapter:
    """
    Makes requests to one provider entry, for callers in one event loop.

    Args:
        name: The provider's name in the catalogue; its API keys are looked up by this name.
        connections_max: Requests in flight. Further requests wait for a connection, up to `http.client.CONNECT_MAX_S`.
    """

    def __init__(
        self,
        name: str,
        entry: ProviderEntry,
        credentials: CredentialsPort,
        *,
        connections_max: int = 2000,
    ) -> None:
        self._name = name
        self._entry = entry
        self._credentials = credentials
        self._connections_max = connections_max
        self._client: _Client | None = None
        self._loop = ProviderLoop(f"provider {name}")

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Send one request; see `LLMProviderPort`."""
        body: RequestBody | None = None
        try:
            key = self._credentials.api_key(self._name, request.org_id)
            if key is None and self._entry.needs_key:
                return MISSING_CREDENTIALS
            if timeout_s <= 0:
                return TOO_LATE
            body = RequestBody(request_json(request, self._entry))
            headers = _headers(key, attempt_id, body)
            # Both loops use the system's monotonic clock.
            deadline = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(deadline + OVERTIME_S):
                return await self._loop.run(self._attempt(request, body, headers, deadline))
        except asyncio.CancelledError:
            # The provider's loop may process the cancellation too late.
            if body is not None:
                body.withdraw()
            raise
        except Exception as exc:
            is_sent = body is not None and not body.withdraw()
            return failure_of(exc, self._entry, is_sent=is_sent)

    def credential(self, org_id: str) -> str:
        """The owner of the key for this organisation's requests; see `LLMProviderPort`."""
        return org_id if self._credentials.has_own_key(self._name, org_id) else ""

    async def _attempt(
        self,
        request: LLMRequest,
        body: RequestBody,
        headers: dict[str, str | openai.Omit],
        deadline: float,
    ) -> ProviderReply | Failure:
        """Send the request and read its reply, in the provider's loop. `deadline` is in that loop's time."""
        response = await self._post(body, headers, deadline)
        answer = reply_of(response.content, response.headers, request, self._entry)
        limits = learned_limits(response.headers, self._entry.rate_limit_headers)
        return replace(answer, limits=limits)

    async def _post(
        self, body: RequestBody, headers: dict[str, str | openai.Omit], deadline: float
    ) -> httpx2.Response:
        """POST the body with the time that is left. TimeoutError at the deadline."""
        client = self._connected()
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        async with asyncio.timeout_at(deadline):
            return await client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=body,
                options={
                    "headers": headers,
                    "timeout": request_timeout(left_s),
                    "follow_redirects": False,
                    "max_retries": 0,
                },
            )

    async def aclose(self) -> None:
        """Close the connections; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_MAX_S):
                    await self._loop.run(client.close())
        self._loop.stop()

    def _connected(self) -> _Client:
        """
        Return the client, made at the first request because its connections belong to the provider's loop.

        Raises:
            NoClient: It cannot be made now. The next request tries again.
        """
        if self._client is None:
            try:
                self._client = _Client(
                    api_key="replaced in every request",
                    base_url=self._entry.base_url or BASE_URL,
                    max_retries=0,
                    http_client=http_client(self._connections_max),
                )
            except Exception as exc:
                # A certificate file, a proxy or an address can raise anything.
                raise NoClient from exc
        return self._client


class _Client(openai.AsyncOpenAI):
    """The SDK's client with few headers: none from the environment, none about this machine."""

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        return {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "callgate",
        }


def _headers(key: str | None, attempt_id: UUID, body: RequestBody) -> dict[str, str | openai.Omit]:
    """Headers of one request. Without a key there is no Authorization."""
    return {
        "Authorization": openai.omit if key is None else f"Bearer {key}",
        "Content-Length": str(body.length),
        ATTEMPT_HEADER: str(attempt_id),
    }
