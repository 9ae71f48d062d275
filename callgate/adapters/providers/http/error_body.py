"""
Reads the error in the body of a reply: its fields, the HTTP status it names, and the names it gives itself.

Providers and gateways put errors in many places and spellings. `refusals` decides what an error means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from callgate.adapters.providers.http.safe_words import CODES

NESTED_MAX = 4
"""Levels of errors within errors that are read."""
NAME_CHARS_MAX = 64
NO_CREDIT_CODES = frozenset(
    {
        # OpenAI, error codes (2026-11).
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        # Anthropic, Errors, "Spend limit reached" (2026-11-29); `anthropic` 2.14, `types/shared`.
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
"""Sent with a 429 or 400, but no retry helps: the account has to be paid, or its limit raised."""
CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
"""OpenAI's `code` and llama.cpp's `type`; other servers say it in their message only."""
BILLED_REFUSALS = frozenset({"content_filter"})
"""
Refusals that may cost money.

Source: Microsoft Learn, Azure OpenAI, "Manage costs", HTTP error response code and billing status (2024-01).
"""
_STATUS_LINE = re.compile(r"\s*(?:HTTP\s+)?([45][0-9]{2})(?:\s.*)?", re.IGNORECASE)
"""A status in text, alone or with its reason: `429 Too Many Requests`."""
_STATUS_KEYS = (
    "code",
    "status",
    "status_code",
    "statusCode",
    "error_code",
    "errorCode",
    "http_status",
)
"""Where an error may name its status. Azure API Management's policies write `statusCode`."""

STATUS_NAMES: dict[str, int] = {
    # RFC 9110 and its registry, as Python names them: too_many_requests, bad_gateway.
    **{status.name.lower(): status.value for status in HTTPStatus if status >= 400},
    # OpenAI, error codes; Anthropic, error types (2026-11).
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "billing_not_active": 429,
    "billing_hard_limit_reached": 429,
    "tokens": 429,
    "requests": 429,
    "server_error": 500,
    "internal_error": 500,
    "api_error": 500,
    "overloaded_error": 529,
    "conflict_error": 409,
    "timeout_error": 504,
    # DeepSeek and OpenRouter, error codes (2026-11).
    "insufficient_balance": 402,
    "insufficient_credits": 402,
    # Mistral, Moonshot AI, Azure OpenAI, Amazon Bedrock, error codes and types (2026-11).
    "rate_limited": 429,
    "rate_limit_reached_error": 429,
    "rate_limit_reached": 429,
    "throttling_exception": 429,
    # Google, google.rpc.Code (2026-11).
    "invalid_argument": 400,
    "failed_precondition": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
"""The statuses that errors name in words, as `code`, `status` or `type`."""
KNOWN_NAMES = CODES | STATUS_NAMES.keys() | NO_CREDIT_CODES | CONTEXT_CODES | BILLED_REFUSALS
"""The names of errors that may be kept; see `safe_words`."""


def error_fields(body: object) -> dict[str, object]:
    """
    Find the error in a parsed JSON body: nested under `error` or `errors`, in a list, or the body itself.

    Returns:
        `code`, `type`, `status`, `message` and so on, the inner fields over the outer ones; empty if there is no error.
    """
    fields: dict[str, object] = {}
    for _ in range(NESTED_MAX):
        if isinstance(body, list):
            body = next((item for item in body if item), None)
        if isinstance(body, str) and body and not body.lstrip().startswith("<"):
            return {**fields, "message": body}
        if not isinstance(body, dict):
            break
        fields |= {name: value for name, value in body.items() if _is_set(value)}
        body = body.get("error") or body.get("errors")
    return fields


def _is_set(value: object) -> bool:
    """False also for `{"code": 0, "message": ""}`: some servers send such an error to say that there is none."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def named_status(error: Mapping[str, object]) -> int | None:
    """The HTTP status (400 to 599) that an error names as a number or a word; None if it names none."""
    for key in _STATUS_KEYS:
        number = _status_number(error.get(key))
        if number is not None:
            return number
    return next((STATUS_NAMES[name] for name in error_names(error) if name in STATUS_NAMES), None)


def error_names(error: Mapping[str, object]) -> list[str]:
    """
    `code`, `status` and `type` of an error in snake case: "TooManyRequests" becomes `too_many_requests`.

    Anthropic names the cause in `details.error_code`. It comes first, because it says more than the type.
    """
    details = error.get("details")
    cause = details.get("error_code") if isinstance(details, dict) else None
    given = (cause, *(error.get(key) for key in ("code", "status", "type")))
    words = (name[:NAME_CHARS_MAX] for name in given if isinstance(name, str))
    return [re.sub(r"(?<=[a-z])(?=[A-Z])|[ -]+", "_", word).lower() for word in words]


def known_names(error: Mapping[str, object]) -> list[str]:
    """Those of `error_names` that are in `KNOWN_NAMES`, each once."""
    return [name for name in dict.fromkeys(error_names(error)) if name in KNOWN_NAMES]


def provider_code(error: Mapping[str, object]) -> str | None:
    """The first known name of an error; None if no name of it is known."""
    return next(iter(known_names(error)), None)


def _status_number(value: object) -> int | None:
    """The status 400 to 599 in a number or in text; None if there is none."""
    if isinstance(value, str) and (match := _STATUS_LINE.fullmatch(value[:NAME_CHARS_MAX])):
        return int(match[1])
    if isinstance(value, int | float) and 400 <= value <= 599:
        return int(value)
    return None
