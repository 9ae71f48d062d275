"""Posts signed messages to the operator's URL: `WebhookPort`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import httpx2

from callgate.domain.errors import WebhookFailed
from callgate.domain.retry_after import retry_after_s
from callgate.domain.webhook_signature import signed_headers

HEADERS = {"content-type": "application/json", "user-agent": "callgate"}


class StandardWebhook:
    """
    `WebhookPort` over HTTP. Its connections belong to one event loop; they are opened by the first message.

    Redirects are not followed, and the body of an answer is not read.

    Args:
        keys: What signs a message: each makes one signature.
    """

    def __init__(self, url: str, keys: Sequence[bytes], *, timeout_s: float) -> None:
        self._url = url
        self._keys = keys
        self._timeout_s = timeout_s
        self._client: httpx2.AsyncClient | None = None

    async def send(self, message_id: str, body: bytes) -> None:
        """Post one message; see `WebhookPort.send`."""
        headers = {**HEADERS, **signed_headers(self._keys, message_id, int(time.time()), body)}
        try:
            # The client's own timeouts bound each read, not all of them together.
            async with asyncio.timeout(self._timeout_s):
                status, answered = await self._answer(body, headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            # Its text may quote the URL, which may hold a secret. A timeout is an OSError.
            raise WebhookFailed(type(exc).__name__) from None
        if not 200 <= status < 300:
            raise WebhookFailed(f"HTTP {status}", retry_after_s(answered))

    async def _answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, Mapping[str, str]]:
        if self._client is None:
            # Reading the certificates takes a while.
            self._client = await asyncio.to_thread(
                httpx2.AsyncClient, timeout=self._timeout_s, follow_redirects=False
            )
        async with self._client.stream(
            "POST", self._url, content=body, headers=headers
        ) as response:
            return response.status_code, response.headers

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None
