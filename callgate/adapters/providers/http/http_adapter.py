"""
`LLMProviderPort` over HTTP: what the adapters of all protocols share. A protocol's folder has the rest.

One attempt is one HTTP request. The SDKs' retries are off and redirects are not followed. aiohttp repeats a request on
a dead pooled connection only for idempotent methods, and POST is not idempotent. Requests and replies bypass the SDKs'
Pydantic models, which would cost as much CPU as the rest of the request.

Environment: only the transport's own variables count (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE,
SSL_CERT_DIR), because many companies have no other way out. `environment.py` checks them when a worker starts.
Variables of the SDKs are ignored: the catalogue and the credentials say where a call goes and who pays for it.

Isolation: nothing that a provider sends is kept for the next request, neither a cookie nor an address. Replies have
limits each and together, and each provider's replies are read in its own event loop.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Protocol
from uuid import UUID

import httpx2

from callgate.adapters.providers.http.client import http_client, request_timeout
from callgate.adapters.providers.http.failures import NoClient, Table, at, classify
from callgate.adapters.providers.http.no_access import why_refused
from callgate.adapters.providers.http.provider_loop import ProviderLoop
from callgate.adapters.providers.http.rate_limit_headers import learned_limits
from callgate.adapters.providers.http.request_body import RequestBody
from callgate.adapters.providers.http.structured import answered
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.ports import CredentialsPort
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import asked
from callgate.domain.urls import host_of

ATTEMPT_HEADER = "X-Callgate-Attempt-Id"
OVERTIME_S = 1.0
"""How long after its deadline an attempt is abandoned here, if the provider's loop is too busy to end it."""
CLOSE_MAX_S = 5.0
PLAIN_HEADERS: Mapping[str, str] = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "callgate",
}
"""All that a client sends by itself: nothing from the environment, nothing about this machine."""
TOO_LATE = Failure("timeout", "no time was left to send the request", True, Billing.UNBILLED)


class SDKClient(Protocol):
    """What is used of an SDK's client: requests that raise the SDK's own errors."""

    @property
    def get(self) -> Callable[..., Awaitable[Any]]:
        """Like `post`. Only `check_key` uses it."""

    @property
    def post(self) -> Callable[..., Awaitable[Any]]:
        """Sends one request, and returns the `httpx2.Response`. A status of failure is raised."""

    async def close(self) -> None:
        """Close the connections."""


class HTTPAdapter(ABC):
    """
    Makes requests to one provider entry, for callers in one event loop.

    Args:
        name: The provider's name in the catalogue; its API keys are looked up by this name.
        connections_max: Requests in flight. Further requests wait for a connection, up to `client.CONNECT_MAX_S`.
    """

    base_url: ClassVar[str]
    """Where requests go if the entry does not say."""
    path: ClassVar[str]
    """The path of the endpoint after the base URL, if the entry does not say."""
    unsent_errors: ClassVar[Table]
    """What an exception means if nothing of the request was sent; see `failures.classify`."""
    sent_errors: ClassVar[Table]
    """What an exception means if the request may have been read."""

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
        self._client: SDKClient | None = None
        self._loop = ProviderLoop(f"provider {name}")

    @abstractmethod
    def _new_client(self, base_url: str, http: httpx2.AsyncClient) -> SDKClient:
        """The SDK's client, without retries, and with no other headers than `PLAIN_HEADERS`."""

    @abstractmethod
    def _key_headers(self, key: str | None) -> Mapping[str, object]:
        """The headers that carry the key and the protocol's version."""

    @abstractmethod
    def _request_json(self, request: LLMRequest) -> bytes:
        """The body of a request: JSON in UTF-8."""

    @abstractmethod
    def _reply_of(
        self, body: bytes, headers: Mapping[str, str], request: LLMRequest
    ) -> ProviderReply | Failure:
        """Read the body of a response with a status of success."""

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Send one request; see `LLMProviderPort`."""
        body: RequestBody | None = None
        where = ""
        try:
            access = self._credentials.access(self._name, request.org_id)
            where = host_of(access.endpoint or self._entry.base_url or self.base_url)
            if refused := why_refused(self._name, self._entry, access):
                return refused
            if timeout_s <= 0:
                return TOO_LATE
            wire = asked(request, self._entry)
            body = RequestBody(self._request_json(wire))
            headers = {
                **self._key_headers(access.key),
                "Content-Length": str(body.length),
                ATTEMPT_HEADER: str(attempt_id),
            }
            # Both loops use the system's monotonic clock.
            deadline = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(deadline + OVERTIME_S):
                path = self._entry.path_of(request.model, self.path)
                url = (access.endpoint or "").rstrip("/") + path
                return await self._loop.run(
                    self._attempt(request, wire, body, headers, deadline, url)
                )
        except asyncio.CancelledError:
            # The provider's loop may process the cancellation too late.
            if body is not None:
                body.withdraw()
            raise
        except Exception as exc:
            is_sent = body is not None and not body.withdraw()
            return at(where, self.failure_of(exc, is_sent=is_sent))

    def credential(self, org_id: str) -> str:
        """The owner of the key for this organisation's requests; see `LLMProviderPort`."""
        return self._credentials.access(self._name, org_id).owner

    async def check_key(self, path: str, *, timeout_s: float) -> Failure | None:
        """
        GET what the provider declares free, with the provider's own key; it is no attempt.

        Args:
            path: See `ProviderEntry.free_check`.

        Returns:
            None if it was answered with a success.
        """
        access = self._credentials.access(self._name, "")
        if refused := why_refused(self._name, self._entry, access):
            return refused
        try:
            await self._loop.run(self._get(path, self._key_headers(access.key), timeout_s))
        except Exception as exc:
            where = host_of(self._entry.base_url or self.base_url)
            return at(where, self.failure_of(exc, is_sent=False))
        return None

    def failure_of(self, exc: Exception, *, is_sent: bool) -> Failure:
        """
        Turn an exception of one request into a failure with its bill.

        Args:
            is_sent: Bytes of the request were, or may have been, handed to the transport.
        """
        if is_sent:
            return classify(exc, self._entry, self.sent_errors)
        return replace(classify(exc, self._entry, self.unsent_errors), billing=Billing.UNBILLED)

    async def _attempt(
        self,
        request: LLMRequest,
        wire: LLMRequest,
        body: RequestBody,
        headers: Mapping[str, object],
        deadline: float,
        url: str,
    ) -> ProviderReply | Failure:
        """
        Send the request and read its reply, in the provider's loop.

        Args:
            wire: The request as the body says it; see `asked`.
            deadline: In that loop's time.
            url: The path after the provider's base URL; of an organisation's own endpoint the whole URL.
        """
        response = await self._post(url, body, headers, deadline)
        reply = self._reply_of(response.content, response.headers, wire)
        answer = answered(reply, request, self._entry)
        limits = learned_limits(response.headers, self._entry.rate_limit_headers)
        return replace(answer, limits=limits)

    async def _post(
        self, url: str, body: RequestBody, headers: Mapping[str, object], deadline: float
    ) -> httpx2.Response:
        """POST the body with the time that is left. TimeoutError at the deadline."""
        client = self._connected()
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        async with asyncio.timeout_at(deadline):
            response: httpx2.Response = await client.post(
                url,
                cast_to=httpx2.Response,
                content=body,
                options={
                    "headers": headers,
                    "timeout": request_timeout(left_s),
                    "follow_redirects": False,
                    "max_retries": 0,
                },
            )
        return response

    async def _get(self, path: str, headers: Mapping[str, object], timeout_s: float) -> None:
        """GET a path. TimeoutError after `timeout_s`."""
        async with asyncio.timeout(timeout_s):
            await self._connected().get(
                self._entry.with_version(path),
                cast_to=httpx2.Response,
                options={
                    "headers": headers,
                    "timeout": request_timeout(timeout_s),
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

    def _connected(self) -> SDKClient:
        """
        Return the client, made at the first request because its connections belong to the provider's loop.

        Raises:
            NoClient: It cannot be made now. The next request tries again.
        """
        if self._client is None:
            try:
                self._client = self._new_client(
                    self._entry.base_url or self.base_url, http_client(self._connections_max)
                )
            except Exception as exc:
                # A certificate file, a proxy or an address can raise anything.
                raise NoClient from exc
        return self._client
