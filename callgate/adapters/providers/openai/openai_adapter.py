"""
`LLMProviderPort` over OpenAI's protocol, with OpenAI's SDK on its aiohttp transport.

One attempt is one HTTP request: the SDK retries nothing, redirects are not followed, and on a pooled connection
that turns out to be dead aiohttp repeats idempotent methods only, which POST is not. Request and reply skip the
SDK's Pydantic models, which would cost as much CPU as the rest of the request.

Environment: only the transport's own variables count (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY,
SSL_CERT_FILE, SSL_CERT_DIR), because many companies have no other way out; a loopback address is never proxied.
`openai_environment` says at the start of a worker which of them cannot work.
The SDK's OPENAI_* variables are ignored: where a call goes and who pays for it is said in the catalogue and by
the credentials.

Nothing a provider sends is kept for the next request: no cookie, no other address. What its replies cost falls on its
own calls: they have bounds each and together, and are read in a loop of the provider's own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import httpx2
import openai

from callgate.adapters.providers.openai.errors import NoClient, failure_of
from callgate.adapters.providers.openai.loop import ProviderLoop
from callgate.adapters.providers.openai.reply import reply_of
from callgate.adapters.providers.openai.transport import RequestBody, http_client
from callgate.adapters.providers.openai.wire import request_body
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.ports import CredentialsPort
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

ATTEMPT_HEADER = "X-Callgate-Attempt-Id"
BASE_URL = "https://api.openai.com/v1"
CONNECT_MAX_S = 10.0
"""
The longest wait for a connection, pool and TLS included; at most half of an attempt's patience.

It ends before the deadline does, so that a server nobody could reach is told from one that may have read the request.
"""
OVERTIME_S = 1.0
"""How long after its deadline an attempt is given up here, if the provider's loop has no time to do so."""
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
        name: The provider's name in the catalogue; its keys are asked for by it.
        connections_max: Requests in flight; more wait for a connection, up to `CONNECT_MAX_S`.
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
            body = RequestBody(request_body(request, self._entry))
            headers = _headers(key, attempt_id, body)
            # Both loops have the system's monotonic clock.
            until = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(until + OVERTIME_S):
                return await self._loop.run(self._attempt(request, body, headers, until))
        except asyncio.CancelledError:
            # The provider's loop may hear of it too late.
            if body is not None:
                body.withdraw()
            raise
        except Exception as exc:
            is_sent = body is not None and not body.withdraw()
            return failure_of(exc, self._entry, is_sent=is_sent)

    def credential(self, org_id: str) -> str:
        """Whose key a request of this organisation is made with; see `LLMProviderPort`."""
        return org_id if self._credentials.has_own_key(self._name, org_id) else ""

    async def _attempt(
        self,
        request: LLMRequest,
        body: RequestBody,
        headers: dict[str, str | openai.Omit],
        until: float,
    ) -> ProviderReply | Failure:
        response = await self._post(body, headers, until)
        return reply_of(response.content, response.headers, request, self._entry)

    async def _post(
        self, body: RequestBody, headers: dict[str, str | openai.Omit], until: float
    ) -> httpx2.Response:
        client = self._connected()
        left_s = max(0.001, until - asyncio.get_running_loop().time())
        async with asyncio.timeout_at(until):
            return await client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=body,
                options={
                    "headers": headers,
                    "timeout": _patience(left_s),
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
        The client, made when the first request is: its connections belong to the provider's loop.

        Raises:
            NoClient: It cannot be made now; the next request tries to.
        """
        if self._client is None:
            try:
                self._client = _Client(
                    api_key="asked for with every request",
                    base_url=self._entry.base_url or BASE_URL,
                    max_retries=0,
                    http_client=http_client(self._connections_max),
                )
            except Exception as exc:
                # Whatever a certificate file, a proxy or an address can raise.
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
    return {
        "Authorization": openai.omit if key is None else f"Bearer {key}",
        "Content-Length": str(body.length),
        ATTEMPT_HEADER: str(attempt_id),
    }


def _patience(timeout_s: float) -> httpx2.Timeout:
    connect_s = min(CONNECT_MAX_S, timeout_s / 2)
    return httpx2.Timeout(timeout_s, connect=connect_s, pool=connect_s)
