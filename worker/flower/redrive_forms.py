"""The forms of redrives, read strictly: which calls, and how one is started. Errors as of `worker.flower.fields`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from callgate.domain.calls import CallState
from callgate.domain.errors import InvalidRequest
from callgate.domain.redrives import CALLS_MAX, RedriveTerms, UnknownBills
from callgate.domain.reports import CallFilter
from callgate.domain.unknown import BILLED_MAX_USD
from worker.flower.fields import read_optional_name, read_usd

Word = Callable[[str], str]
"""Reads one argument; empty if it is not given."""
FIELDS = (
    "state",
    "org",
    "type",
    "provider",
    "model",
    "fp",
    "reason_code",
    "ids",
    "since",
    "until",
    "max",
)
"""What chooses calls. Other pages write these into their links; `reason` is there what `reason_code` is here."""
STATES = {"dead": "Dead letters", "rejected": "Refused calls"}
UNKNOWN_BILLS = {
    UnknownBills.REFUSE: "Do not start if there are any",
    UnknownBills.SKIP: "Leave them out",
    UnknownBills.PAY_AGAIN: "Release them too: I accept that they may be paid twice",
}
IDS_CHARS_MAX = 4_000


def read_selection(word: Word) -> tuple[CallFilter, int]:
    """Read which calls are meant, and how many at most."""
    state = word("state") or "dead"
    if state not in STATES:
        raise InvalidRequest(f"{state[:20]!r} is neither dead nor rejected")
    which = CallFilter(
        state=CallState(state),
        org_id=read_optional_name(word("org"), "organisation") or None,
        call_type=read_optional_name(word("type"), "call type") or None,
        provider=read_optional_name(word("provider"), "provider") or None,
        model=read_optional_name(word("model"), "model") or None,
        error_fingerprint=read_optional_name(word("fp"), "fingerprint") or None,
        end_reason=read_optional_name(word("reason_code"), "reason") or None,
        call_ids=_read_ids(word("ids")),
        since=_read_time(word("since")),
        until=_read_time(word("until")),
    )
    return which, _read_count(word("max") or str(CALLS_MAX), "at most", least=1)


def read_terms(word: Word) -> RedriveTerms:
    """Read how fast it goes, and when it stops by itself."""
    cap = word("cap")
    try:
        return RedriveTerms(
            rate_per_min=_read_number(word("rate"), "rate") if word("rate") else None,
            cap_nano_usd=read_usd(cap, usd_max=BILLED_MAX_USD) if cap else None,
            stop_share=_read_number(word("stop_percent"), "share that stops it") / 100,
            stop_min=_read_count(word("stop_min"), "least that stops it", least=1),
        )
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None


def read_unknown_bills(text: str) -> UnknownBills:
    """Read what happens to calls with unknown bills."""
    try:
        return UnknownBills(text or UnknownBills.REFUSE)
    except ValueError:
        raise InvalidRequest("the form says nothing of unknown bills: open it again") from None


def read_expected(text: str) -> int:
    """Read how many calls are expected."""
    return _read_count(text, "expected", least=0)


def read_id(text: str) -> UUID:
    """Read the id of a redrive."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is not the id of a redrive") from None


def _read_ids(text: str) -> tuple[UUID, ...]:
    try:
        return tuple(UUID(one.partition(".")[0]) for one in text.replace(",", " ").split())
    except ValueError:
        raise InvalidRequest("these are not all ids of calls") from None


def _read_time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no time, as 2026-11-30T18:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _read_count(text: str, what: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= CALLS_MAX:
        raise InvalidRequest(f"{what}: type a number of calls from {least} to {CALLS_MAX:,}")
    return int(text)


def _read_number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{text[:20]!r} is no number ({what})") from None
