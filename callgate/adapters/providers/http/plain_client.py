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
from callgate.adapters.providers.http.own_errors import USUAL_ERRORS, OwnErrors
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.domain.bounded_json import loads
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure


class Refused(Exception):
    """The status is not a success. Error and headers are in the form that `refusals` reads."""

    def __init__(
        self, status: int, error: Mapping[str, object], headers: Mapping[str, str]
    ) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.headers = headers


class PlainClient:
    """See `http_adapter.SDKClient`."""

    def __init__(
        self, base_url: str, http: httpx2.AsyncClient, errors: OwnErrors = USUAL_ERRORS
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._errors = errors

    async def post(
        self, path: str, *, content: AsyncIterable[bytes], options: Mapping[str, Any], **_: object
    ) -> httpx2.Response:
        """
        Send one request.

        Raises:
            Refused: The status is not a success.
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
        if response.is_success:
            return response
        error = self._error_in(response.content)
        raise Refused(response.status_code, error, self._errors.with_wait(response.headers))

    def _error_in(self, content: bytes) -> dict[str, object]:
        """The error in the body of a refusal; empty if it cannot be read."""
        try:
            body = loads(content)
        except ValueError:
            return {}
        return error_fields(self._errors.translated(body) if isinstance(body, dict) else body)


def _refusal(exc: BaseException, entry: ProviderEntry) -> Failure:
    """Classify an HTTP status; see `refusal_of`."""
    if not isinstance(exc, Refused):
        raise TypeError(f"{type(exc).__name__} has no status")
    return refusal_of(exc.status, exc.error, exc.headers, entry)


_STATUS_ERRORS: Table = ((Refused, _refusal),)
UNSENT: Table = (*UNSENT_CLIENT, *_STATUS_ERRORS, *UNSENT_TRANSPORT)
"""Nothing of the request was sent. A status is possible: a server may refuse before it has read anything."""
SENT: Table = (*SENT_AIOHTTP, *_STATUS_ERRORS, *SENT_HTTPX, *ANY_ERROR)
"""The request may have been read."""
