"""
What exactly failed, in callgate's own words, and whose fault a failure can be.

The message of most failures quotes the provider, so it is in no alert and in no line of the log. A *cause* is a message
that callgate wrote itself: which host and port, and how it failed; or which key is missing.
"""

from __future__ import annotations

from callgate.domain.provider import MESSAGE_CHARS_MAX, Failure

NETWORK_CODES = frozenset({
    "connect_timeout", "connection_failed", "connection_lost", "dns_failed", "not_sent", "proxy_failed", "timeout",
    "tls_failed",
})  # fmt: skip
"""The way to the provider failed."""
OWN_WORDS_CODES = NETWORK_CODES | {"endpoint_refused", "missing_credentials"}
"""Failures whose message callgate wrote. The function `callgate_cause_v1` of Postgres has the same list."""
KEY_CODES = frozenset({
    "authentication_failed", "insufficient_quota", "missing_credentials", "permission_denied"
})  # fmt: skip
"""The key, or the account that it belongs to."""
OF_NO_ORGANISATION = NETWORK_CODES | KEY_CODES
"""Failures that concern everybody who uses the same key, no matter whose call came first."""


def cause_of(failure: Failure | None) -> str | None:
    """What exactly failed; None if only the provider's words say that."""
    if failure is None or failure.code not in OWN_WORDS_CODES:
        return None
    return failure.message[:MESSAGE_CHARS_MAX]


def cause_of_json(error: str | None) -> str | None:
    """The cause of a stored error; None also of one that is no failure."""
    try:
        return None if error is None else cause_of(Failure.from_json(error))
    except (ValueError, KeyError, TypeError):
        return None


def whose(reason: str | None, credential: str, org_id: str) -> str:
    """
    Whom an open breaker concerns.

    Args:
        reason: The code of the failure that opened it.
        credential: The organisation whose own key is used; empty: the provider's key.
        org_id: Whose calls the breaker guards; empty: every organisation's.
    """
    if credential:
        return f"the own key of {credential}"
    if not org_id:
        return "the provider's shared key; every organisation's calls wait"
    if reason in OF_NO_ORGANISATION:
        return f"the provider's shared key; so far only calls of {org_id} failed"
    return f"only calls of {org_id}"
