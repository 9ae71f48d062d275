"""
What a provider says when it refuses: a status with an error in its body, or an error in the body of a 200.

Both are judged by the same rules. An error in a 200 counts as the status it names, in numbers or in words; gateways
send them so because the status had left before the upstream failed. Nothing of the provider's own text is kept; see
`openai_words`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from email.utils import mktime_tz, parsedate_tz
from http import HTTPStatus

from callgate.adapters.providers.openai.words import CODES, SENTENCES, hint, parameter, words_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure

RETRY_AFTER_MAX_S = 86_400.0
"""What a longer, or infinite, Retry-After is cut to."""
NESTED_MAX = 4
"""Errors within errors that are looked into."""
NO_CREDIT_CODES = frozenset(
    {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}
)
"""Said with a 429 or 400, but no patience helps: somebody has to pay."""
CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
"""OpenAI's `code` and llama.cpp's `type`; other servers say it in words only."""
CONTEXT_WORDS = ("context length", "context size", "context window")
BILLED_REFUSALS = frozenset({"content_filter"})
"""
Refusals that may cost money all the same.

Source: Microsoft Learn, Azure OpenAI, "Manage costs", HTTP error response code and billing status (2024-01).
"""
EXPLAINED_STATUSES = frozenset({400, 404, 413, 422})
"""Where it helps those who sent the request to know what of it is meant; elsewhere the code says it all."""
TOO_LARGE_WORDS = "request too large"
TOKENS_WORDS = re.compile(r"tokens|\btpm\b", re.IGNORECASE)
LIMIT = re.compile(r"limit\D{0,40}?(\d[\d,]{0,15})", re.IGNORECASE)
REQUESTED = re.compile(r"requested\D{0,20}?(\d[\d,]{0,15})", re.IGNORECASE)
"""OpenAI's and Groq's words of a 429 about tokens per minute; what was requested above the limit can never fit."""
STATUS_LINE = re.compile(r"\s*(?:HTTP\s+)?([45][0-9]{2})(?:\s.*)?", re.IGNORECASE)
"""A status in text, alone or with its reason: `429 Too Many Requests`."""
NAME_CHARS_MAX = 64
STATUS_KEYS = (
    "code",
    "status",
    "status_code",
    "statusCode",
    "error_code",
    "errorCode",
    "http_status",
)
"""Where an error may name its status. Azure API Management's policies write `statusCode`."""

STATUSES: dict[int, tuple[str, bool, Billing]] = {
    400: ("bad_request", False, Billing.UNBILLED),
    401: ("authentication_failed", False, Billing.UNBILLED),
    402: ("insufficient_quota", False, Billing.UNBILLED),
    403: ("permission_denied", False, Billing.UNBILLED),
    404: ("not_found", False, Billing.UNBILLED),
    # Of a proxy that plain HTTP goes through: its password is wrong, and no call's fault.
    407: ("proxy_failed", True, Billing.UNBILLED),
    408: ("request_timeout", True, Billing.UNKNOWN),
    409: ("conflict", True, Billing.UNBILLED),
    413: ("request_too_large", False, Billing.UNBILLED),
    422: ("unprocessable", False, Billing.UNBILLED),
    429: ("rate_limited", True, Billing.UNBILLED),
}
"""Code, retryable and billing of the statuses 4xx that have a meaning of their own."""

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
"""The names of errors that are told."""
UNEXPLAINED = frozenset({"bad_request", "unprocessable", "not_found"})
"""The failures that say little, so that a hint helps."""


def error_in(body: object) -> dict[str, object]:
    """
    The fields of the error that a body holds, wherever it is: nested, in a list, or the body itself.

    Returns:
        `code`, `type`, `status`, `message` and so on, as far as there are any; empty if it holds no error.
    """
    fields: dict[str, object] = {}
    for _ in range(NESTED_MAX):
        if isinstance(body, list):
            body = next((item for item in body if item), None)
        if isinstance(body, str) and body and not body.lstrip().startswith("<"):
            return {**fields, "message": body}
        if not isinstance(body, dict):
            break
        fields |= {name: value for name, value in body.items() if _says(value)}
        body = body.get("error") or body.get("errors")
    return fields


def _says(value: object) -> bool:
    """False of `{"code": 0, "message": ""}` and the like: some servers send an error that says there is none."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def named_status(error: Mapping[str, object]) -> int | None:
    """The status an error names, in numbers or in words."""
    for key in STATUS_KEYS:
        number = _status_number(error.get(key))
        if number is not None:
            return number
    return next((STATUS_NAMES[name] for name in _names(error) if name in STATUS_NAMES), None)


def _names(error: Mapping[str, object]) -> list[str]:
    """What an error calls itself, in one spelling: `too_many_requests` for "TooManyRequests" too."""
    given = (error.get(key) for key in ("code", "status", "type"))
    words = (name[:NAME_CHARS_MAX] for name in given if isinstance(name, str))
    return [re.sub(r"(?<=[a-z])(?=[A-Z])|[ -]+", "_", word).lower() for word in words]


def _status_number(value: object) -> int | None:
    if isinstance(value, str) and (match := STATUS_LINE.fullmatch(value[:NAME_CHARS_MAX])):
        return int(match[1])
    if isinstance(value, int | float) and 400 <= value <= 599:
        return int(value)
    return None


def refusal_of(
    status: int,
    error: Mapping[str, object],
    headers: Mapping[str, str],
    entry: ProviderEntry,
    *,
    within: int | None = None,
) -> Failure:
    """
    Say what a refusal means.

    Args:
        status: The status, or the one that the error names.
        error: See `error_in`.
        within: The status of the response, if the error came in the body of a success.
    """
    code, retryable, billing = _verdict(status, error, entry)
    sentence = _sentence(status, code, error)
    return Failure(
        code=code,
        message=sentence if within is None else f"HTTP {within} with an error: {sentence}",
        retryable=retryable,
        billing=billing,
        status=status,
        provider_code=provider_code(error),
        retry_after_s=retry_after_s(headers) or _asked_in_body_s(error),
    )


def provider_code(error: Mapping[str, object]) -> str | None:
    """What the provider calls the error, if that is a name many use."""
    return next(iter(_known_names(error)), None)


def _known_names(error: Mapping[str, object]) -> list[str]:
    return [name for name in dict.fromkeys(_names(error)) if name in KNOWN_NAMES]


def _verdict(
    status: int, error: Mapping[str, object], entry: ProviderEntry
) -> tuple[str, bool, Billing]:
    names, words = set(_names(error)), words_of(error)
    if status < 400:
        return ("redirected", False, Billing.UNBILLED)
    if status >= 500:
        return ("server_error", True, Billing(entry.server_errors))
    if names & BILLED_REFUSALS:
        return ("content_filtered", False, Billing.UNKNOWN)
    if status == 403 and _is_moderation(error.get("metadata")):
        return ("content_filtered", False, Billing.UNBILLED)
    if names & NO_CREDIT_CODES:
        return ("insufficient_quota", False, Billing.UNBILLED)
    if status in EXPLAINED_STATUSES and (names & CONTEXT_CODES or _blames_context(words)):
        return ("context_length_exceeded", False, Billing.UNBILLED)
    if status == 429 and _can_never_fit(words, names):
        return STATUSES[413]
    return STATUSES.get(status, ("rejected", False, Billing.UNBILLED))


def _is_moderation(metadata: object) -> bool:
    """
    True if the input was refused, and not the key: an input of one tenant must not close the key for all.

    Source: OpenRouter, API reference, errors, moderation metadata (2026-11).
    """
    return isinstance(metadata, dict) and bool(metadata.keys() & {"flagged_input", "reasons"})


def _blames_context(words: str) -> bool:
    return any(phrase in words for phrase in CONTEXT_WORDS)


def _can_never_fit(words: str, names: Collection[str]) -> bool:
    """True if the request alone is above the limit, so that no waiting helps."""
    if TOO_LARGE_WORDS in words:
        return True
    limit, requested = LIMIT.search(words), REQUESTED.search(words)
    is_about_tokens = "tokens" in names or TOKENS_WORDS.search(words)
    if limit is None or requested is None or not is_about_tokens:
        return False
    return int(requested[1].replace(",", "")) > int(limit[1].replace(",", ""))


def _sentence(status: int, code: str, error: Mapping[str, object]) -> str:
    parts = [f"HTTP {status}", *_known_names(error)]
    is_explained = status in EXPLAINED_STATUSES
    if is_explained and (name := parameter(error)):
        parts.append(f"param {name}")
    sentence = SENTENCES[code]
    if is_explained and code in UNEXPLAINED and (told := hint(error)):
        sentence += f": {told}"
    return f"{', '.join(parts)}: {sentence}"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """
    Read `retry-after-ms` or `retry-after` (seconds or a date).

    A date is compared with the response's own `date`, never with our clock.

    Source: RFC 9110, 10.2.3; `retry-after-ms` is OpenAI's.
    """
    for name, per_s in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (number := _number(headers.get(name))) is not None:
            return _bounded_s(number / per_s)
    until, now = _epoch_s(headers.get("retry-after")), _epoch_s(headers.get("date"))
    return None if until is None or now is None else _bounded_s(until - now)


def _asked_in_body_s(error: Mapping[str, object]) -> float | None:
    asked = error.get("retry_after")
    is_number = isinstance(asked, int | float | str) and not isinstance(asked, bool)
    number = _number(str(asked)) if is_number else None
    return None if number is None else _bounded_s(number)


def _bounded_s(seconds: float) -> float | None:
    return min(seconds, RETRY_AFTER_MAX_S) if seconds > 0 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _epoch_s(text: str | None) -> float | None:
    try:
        fields = parsedate_tz(text or "")
        return None if fields is None else float(mktime_tz(fields))
    except (ValueError, OverflowError):
        return None
