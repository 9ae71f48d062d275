"""
What a refusal means: an HTTP status, with the error in its body, becomes a `Failure`.

An error in the body of a 200 is classified by the status that it names. Gateways send such errors when the upstream
fails after they have sent their own status. None of the provider's own text is kept; see `safe_words`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from callgate.adapters.providers.http.error_body import (
    BILLED_REFUSALS,
    CONTEXT_CODES,
    NO_CREDIT_CODES,
    error_names,
    known_names,
    provider_code,
)
from callgate.adapters.providers.http.rate_limit_headers import learned_limits, reset_s
from callgate.adapters.providers.http.safe_words import SENTENCES, hint, lower_message, parameter
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure
from callgate.domain.retry_after import retry_after_in_body_s, retry_after_s

CONTEXT_WORDS = ("context length", "context size", "context window")
EXPLAINED_STATUSES = frozenset({400, 404, 413, 422})
"""Statuses about the request itself, where a parameter or a hint helps its sender."""
UNEXPLAINED_CODES = frozenset({"bad_request", "unprocessable", "not_found"})
"""Failure codes that say little, so that a hint is added."""
TOO_LARGE_WORDS = "request too large"
TOKENS_WORDS = re.compile(r"tokens|\btpm\b", re.IGNORECASE)
LIMIT = re.compile(r"limit\D{0,40}?(\d[\d,]{0,15})", re.IGNORECASE)
REQUESTED = re.compile(r"requested\D{0,20}?(\d[\d,]{0,15})", re.IGNORECASE)
"""How OpenAI and Groq write the two numbers of a 429 about tokens per minute."""

STATUSES: dict[int, tuple[str, bool, Billing]] = {
    400: ("bad_request", False, Billing.UNBILLED),
    401: ("authentication_failed", False, Billing.UNBILLED),
    402: ("insufficient_quota", False, Billing.UNBILLED),
    403: ("permission_denied", False, Billing.UNBILLED),
    404: ("not_found", False, Billing.UNBILLED),
    # From a proxy for plain HTTP: its password is wrong. That is not the call's fault.
    407: ("proxy_failed", True, Billing.UNBILLED),
    408: ("request_timeout", True, Billing.UNKNOWN),
    409: ("conflict", True, Billing.UNBILLED),
    413: ("request_too_large", False, Billing.UNBILLED),
    422: ("unprocessable", False, Billing.UNBILLED),
    429: ("rate_limited", True, Billing.UNBILLED),
}
"""Failure code, retryable and billing of each 4xx status with its own meaning."""


def refusal_of(
    status: int,
    error: Mapping[str, object],
    headers: Mapping[str, str],
    entry: ProviderEntry,
    *,
    within: int | None = None,
) -> Failure:
    """
    Classify a refusal.

    Args:
        status: The HTTP status of the response, or the one that the error names.
        error: See `error_fields`.
        within: The status of the response, if it was a success with an error in its body.
    """
    code, retryable, billing = _classification(status, error, entry)
    message = _message(status, code, error)
    return Failure(
        code=code,
        message=message if within is None else f"HTTP {within} with an error: {message}",
        retryable=retryable,
        billing=billing,
        status=status,
        provider_code=provider_code(error),
        retry_after_s=_wait_s(status, error, headers, entry),
        limits=learned_limits(headers, entry.rate_limit_headers),
    )


def _wait_s(
    status: int, error: Mapping[str, object], headers: Mapping[str, str], entry: ProviderEntry
) -> float | None:
    """The wait that the provider asks for; without one, a 429 waits until what is exhausted is available again."""
    asked_s = retry_after_s(headers) or retry_after_in_body_s(error)
    if asked_s is None and status == 429:
        return reset_s(headers, entry.rate_limit_headers)
    return asked_s


def _classification(
    status: int, error: Mapping[str, object], entry: ProviderEntry
) -> tuple[str, bool, Billing]:
    """Failure code, retryable and billing. The first rule that applies decides."""
    names, message = set(error_names(error)), lower_message(error)
    if status < 400:
        return ("redirected", False, Billing.UNBILLED)
    if status >= 500 or status in entry.status_bills:
        bill = entry.status_bills.get(status, entry.server_errors)
        return ("server_error", True, Billing(bill))
    if names & BILLED_REFUSALS:
        return ("content_filtered", False, Billing.UNKNOWN)
    if status == 403 and _is_moderation(error.get("metadata")):
        return ("content_filtered", False, Billing.UNBILLED)
    if names & NO_CREDIT_CODES:
        return ("insufficient_quota", False, Billing.UNBILLED)
    if status in EXPLAINED_STATUSES and (names & CONTEXT_CODES or _is_context_overflow(message)):
        return ("context_length_exceeded", False, Billing.UNBILLED)
    if status == 429 and _is_over_rate_limit_alone(message, names):
        return STATUSES[413]
    return STATUSES.get(status, ("rejected", False, Billing.UNBILLED))


def _is_moderation(metadata: object) -> bool:
    """
    True if a 403 refuses the input and not the API key.

    An input of one tenant must not count against the key that all tenants use.

    Source: OpenRouter, API reference, errors, moderation metadata (2026-11).
    """
    return isinstance(metadata, dict) and bool(metadata.keys() & {"flagged_input", "reasons"})


def _is_context_overflow(message: str) -> bool:
    """True if the provider's message is about the model's context window."""
    return any(phrase in message for phrase in CONTEXT_WORDS)


def _is_over_rate_limit_alone(message: str, names: Collection[str]) -> bool:
    """True if this one request has more tokens than a rate limit allows, so that no wait helps."""
    if TOO_LARGE_WORDS in message:
        return True
    limit, requested = LIMIT.search(message), REQUESTED.search(message)
    is_about_tokens = "tokens" in names or TOKENS_WORDS.search(message)
    if limit is None or requested is None or not is_about_tokens:
        return False
    return int(requested[1].replace(",", "")) > int(limit[1].replace(",", ""))


def _message(status: int, code: str, error: Mapping[str, object]) -> str:
    """The failure's message: `HTTP 400, <known names>, param <name>: <our sentence>: <hint>`."""
    parts = [f"HTTP {status}", *known_names(error)]
    is_explained = status in EXPLAINED_STATUSES
    if is_explained and (name := parameter(error)):
        parts.append(f"param {name}")
    sentence = SENTENCES[code]
    if is_explained and code in UNEXPLAINED_CODES and (advice := hint(error)):
        sentence += f": {advice}"
    return f"{', '.join(parts)}: {sentence}"
