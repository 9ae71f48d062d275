"""What the tables of the ledger refuse by their CHECKs, for the ledger that has none; see `callgate.domain.bounds`."""

from __future__ import annotations

from callgate.domain import bounds
from callgate.domain.ledger import NewSubmission, RecordAnswer, Reserve, Settle
from callgate.domain.trace_context import TRACEPARENT_CHARS

TOO_LARGE = "a column is larger than its bound"


def takes_submission(new: NewSubmission) -> bool:
    """Whether every column can be stored."""
    names = (new.org_id, new.call_type, new.provider, new.model)
    return (
        all(_has_chars(name, bounds.NAME_CHARS_MAX) for name in names)
        and len(new.input_hash) == bounds.HASH_BYTES
        and 0 <= new.input_token_bound <= bounds.INPUT_TOKENS_MAX
        and len(new.request) <= bounds.REQUEST_MAX_BYTES
        and _has_chars(new.idempotency_key, bounds.IDEMPOTENCY_KEY_CHARS_MAX)
        and _has_bytes(new.link, bounds.LINK_MAX_BYTES)
        and _has_bytes(new.traceparent, TRACEPARENT_CHARS)
    )


def takes_claim(claim: Reserve) -> bool:
    """Whether every column can be stored."""
    return (
        _has_chars(claim.worker_id, bounds.PROCESS_CHARS_MAX)
        and _has_chars(claim.price_source, bounds.SOURCE_CHARS_MAX)
        and _has_chars(claim.trace_id, bounds.TRACE_ID_CHARS_MAX)
        and _has_chars(claim.credential, bounds.NAME_CHARS_MAX)
        and 0 <= claim.input_token_bound <= bounds.INPUT_TOKENS_MAX
    )


def takes_error(error: str) -> bool:
    """Whether the error of a call can be stored."""
    return _has_bytes(error, bounds.ERROR_MAX_BYTES)


def takes_record(answer: RecordAnswer) -> bool:
    """Whether every column can be stored."""
    return (
        len(answer.reply or b"") <= bounds.REPLY_MAX_BYTES
        and _has_bytes(answer.error, bounds.ERROR_MAX_BYTES)
        and _has_chars(answer.provider_request_id, bounds.NAME_CHARS_MAX)
    )


def takes_settlement(settlement: Settle) -> bool:
    """Whether every column can be stored."""
    return (
        _has_chars(settlement.price_source, bounds.SOURCE_CHARS_MAX)
        and _has_chars(settlement.service_tier, bounds.NAME_CHARS_MAX)
        and _has_bytes(settlement.error, bounds.ERROR_MAX_BYTES)
        and _has_chars(settlement.error_fingerprint, bounds.FINGERPRINT_CHARS_MAX)
    )


def _has_chars(text: str | None, chars_max: int) -> bool:
    return text is None or (len(text) <= chars_max and "\x00" not in text)


def _has_bytes(text: str | None, max_bytes: int) -> bool:
    return text is None or (len(text.encode()) <= max_bytes and "\x00" not in text)
