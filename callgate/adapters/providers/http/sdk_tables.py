"""The tables of an SDK that has one base class for HTTP statuses, as those of OpenAI and Anthropic have."""

from __future__ import annotations

from typing import Any

from callgate.adapters.providers.http.error_body import error_fields
from callgate.adapters.providers.http.failures import (
    ANY_ERROR,
    SENT_AIOHTTP,
    SENT_HTTPX,
    UNSENT_CLIENT,
    UNSENT_TRANSPORT,
    Table,
)
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure


def sdk_tables(status_error: type[BaseException], others: Table) -> tuple[Table, Table]:
    """
    The table for requests of which nothing was sent, and the one for those that may have been read.

    A status is possible in both: a server may refuse before it has read anything. The SDK has subclasses for statuses
    and causes. The status decides, so one row is for all of them.

    Args:
        others: The SDK's other classes.
    """
    refused: Table = ((status_error, _refusal),)
    return (
        (*UNSENT_CLIENT, *refused, *UNSENT_TRANSPORT),
        (*SENT_AIOHTTP, *refused, *SENT_HTTPX, *others, *ANY_ERROR),
    )


def _refusal(exc: Any, entry: ProviderEntry) -> Failure:
    """Classify an HTTP status of the SDK; see `refusal_of`."""
    return refusal_of(exc.status_code, error_fields(exc.body), exc.response.headers, entry)
