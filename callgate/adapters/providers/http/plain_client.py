"""A client for protocols without an SDK: one POST, and an error for each status that is not a success."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Any

import httpx2

from callgate.adapters.providers.http.error_body import error_fields
from callgate.adapters.providers.http.failures import (
    ANY_ERROR,
    SENT_AIOHTTP,
    SENT_HTTPX,
    UNSENT_CLIENT,
    UNSENT_TRANSPORT,
    Table,
)
from callgate.adapters.providers.http.http_adapter import PLAIN_HEADERS
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.domain.bounded_json import loads
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure


class PlainClient:
    """See `http_adapter.SDKClient`."""

    def __init__(self, base_url: str, http: httpx2.AsyncClient) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http

    async def post(
        self, path: str, *, content: AsyncIterable[bytes], options: Mapping[str, Any], **_: object
    ) -> httpx2.Response:
        """
        Send one request.

        Raises:
            httpx2.HTTPStatusError: The status is not a success.
        """
        return await self._request("POST", path, options, content)

    async def get(self, path: str, *, options: Mapping[str, Any], **_: object) -> httpx2.Response:
        """Like `post`, without a body."""
        return await self._request("GET", path, options, None)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(
        self,
        method: str,
        path: str,
        options: Mapping[str, Any],
        content: AsyncIterable[bytes] | None,
    ) -> httpx2.Response:
        response = await self._http.request(
            method,
            self._base_url + path,
            content=content,
            headers={**PLAIN_HEADERS, **options["headers"]},
            timeout=options["timeout"],
            follow_redirects=False,
        )
        return response.raise_for_status()


def _refusal(exc: BaseException, entry: ProviderEntry) -> Failure:
    """Classify an HTTP status; see `refusal_of`."""
    if not isinstance(exc, httpx2.HTTPStatusError):
        raise TypeError(f"{type(exc).__name__} has no status")
    response = exc.response
    try:
        error = error_fields(loads(response.content))
    except ValueError:
        error = {}
    return refusal_of(response.status_code, error, response.headers, entry)


_STATUS_ERRORS: Table = ((httpx2.HTTPStatusError, _refusal),)
UNSENT: Table = (*UNSENT_CLIENT, *_STATUS_ERRORS, *UNSENT_TRANSPORT)
"""Nothing of the request was sent. A status is possible: a server may refuse before it has read anything."""
SENT: Table = (*SENT_AIOHTTP, *_STATUS_ERRORS, *SENT_HTTPX, *ANY_ERROR)
"""The request may have been read."""
