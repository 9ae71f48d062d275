"""What each exception of OpenAI's SDK means, combined with the tables for the HTTP libraries (`http/failures.py`)."""

from __future__ import annotations

import openai

from callgate.adapters.providers.http.failures import (
    CONNECTION_LOST,
    INVALID_RESPONSE,
    TIMEOUT,
    UNEXPECTED,
)
from callgate.adapters.providers.http.sdk_tables import sdk_tables

UNSENT, SENT = sdk_tables(
    openai.APIStatusError,
    (
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
    ),
)
