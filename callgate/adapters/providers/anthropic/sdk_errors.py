"""What each exception of Anthropic's SDK means, with the tables for the HTTP libraries (`http/failures.py`)."""

from __future__ import annotations

import anthropic

from callgate.adapters.providers.http.error_body import error_fields
from callgate.adapters.providers.http.failures import (
    ANY_ERROR,
    CONNECTION_LOST,
    INVALID_RESPONSE,
    SENT_AIOHTTP,
    SENT_HTTPX,
    TIMEOUT,
    UNEXPECTED,
    UNSENT_CLIENT,
    UNSENT_TRANSPORT,
    Table,
)
from callgate.adapters.providers.http.refusals import refusal_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Failure


def _refusal(exc: BaseException, entry: ProviderEntry) -> Failure:
    """Classify an HTTP status of the SDK; see `refusal_of`."""
    if not isinstance(exc, anthropic.APIStatusError):
        raise TypeError(f"{type(exc).__name__} has no status")
    return refusal_of(exc.status_code, error_fields(exc.body), exc.response.headers, entry)


STATUS_ERRORS: Table = ((anthropic.APIStatusError, _refusal),)
"""The SDK has a class for each status and for many causes. The status decides, so one row is for all of them."""
OTHER_ERRORS: Table = (
    (anthropic.APITimeoutError, TIMEOUT),
    (anthropic.APIConnectionError, CONNECTION_LOST),
    (anthropic.APIResponseValidationError, INVALID_RESPONSE),
    (anthropic.APIWebhookValidationError, UNEXPECTED),
    (anthropic.APIError, UNEXPECTED),
    (anthropic.RetryableError, UNEXPECTED),
    (anthropic.IdentityTokenFileError, UNEXPECTED),
    (anthropic.CredentialsError, UNEXPECTED),
    (anthropic.WorkloadIdentityError, UNEXPECTED),
    (anthropic.AnthropicError, UNEXPECTED),
)
UNSENT: Table = (*UNSENT_CLIENT, *STATUS_ERRORS, *UNSENT_TRANSPORT)
"""Nothing of the request was sent. A status is possible: a server may refuse before it has read anything."""
SENT: Table = (*SENT_AIOHTTP, *STATUS_ERRORS, *SENT_HTTPX, *OTHER_ERRORS, *ANY_ERROR)
"""The request may have been read."""
