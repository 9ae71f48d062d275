"""What each exception of OpenAI's SDK means, combined with the tables for the HTTP libraries (`http/failures.py`)."""

from __future__ import annotations

import openai

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
    if not isinstance(exc, openai.APIStatusError):
        raise TypeError(f"{type(exc).__name__} has no status")
    return refusal_of(exc.status_code, error_fields(exc.body), exc.response.headers, entry)


STATUS_ERRORS: Table = (
    (openai.BadRequestError, _refusal),
    (openai.OAuthError, _refusal),
    (openai.AuthenticationError, _refusal),
    (openai.PermissionDeniedError, _refusal),
    (openai.NotFoundError, _refusal),
    (openai.ConflictError, _refusal),
    (openai.UnprocessableEntityError, _refusal),
    (openai.RateLimitError, _refusal),
    (openai.InternalServerError, _refusal),
    (openai.APIStatusError, _refusal),
)
OTHER_ERRORS: Table = (
    (openai.APITimeoutError, TIMEOUT),
    (openai.APIConnectionError, CONNECTION_LOST),
    (openai.APIResponseValidationError, INVALID_RESPONSE),
    (openai.LengthFinishReasonError, INVALID_RESPONSE),
    (openai.ContentFilterFinishReasonError, INVALID_RESPONSE),
    (openai.APIError, UNEXPECTED),
    (openai.WebSocketConnectionClosedError, UNEXPECTED),
    (openai.WebSocketQueueFullError, UNEXPECTED),
    (openai.OpenAIError, UNEXPECTED),
    (openai.InvalidWebhookSignatureError, UNEXPECTED),
)
UNSENT: Table = (*UNSENT_CLIENT, *STATUS_ERRORS, *UNSENT_TRANSPORT)
"""Nothing of the request was sent. A status is possible: a server may refuse before it has read anything."""
SENT: Table = (*SENT_AIOHTTP, *STATUS_ERRORS, *SENT_HTTPX, *OTHER_ERRORS, *ANY_ERROR)
"""The request may have been read."""
