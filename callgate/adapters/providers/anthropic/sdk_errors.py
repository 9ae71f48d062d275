"""What each exception of Anthropic's SDK means, with the tables for the HTTP libraries (`http/failures.py`)."""

from __future__ import annotations

import anthropic

from callgate.adapters.providers.http.failures import (
    CONNECTION_LOST,
    INVALID_RESPONSE,
    TIMEOUT,
    UNEXPECTED,
)
from callgate.adapters.providers.http.sdk_tables import sdk_tables

UNSENT, SENT = sdk_tables(
    anthropic.APIStatusError,
    (
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
    ),
)
