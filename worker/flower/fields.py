"""What forms and addresses bring, read strictly. Everything raises `InvalidRequest` with a message for the user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from callgate.domain.bounds import NAME_CHARS_MAX, SCOPE_CHARS_MAX
from callgate.domain.budgets import Window, nano_usd_of
from callgate.domain.errors import InvalidRequest
from callgate.services.bills import attempt_uuid


def read_name(text: str, what: str) -> str:
    """Read a name that the ledger may have, whatever its characters."""
    if not text:
        raise InvalidRequest(f"name the {what}")
    return read_optional_name(text, what)


def read_optional_name(text: str, what: str, *, chars_max: int = NAME_CHARS_MAX) -> str:
    """The same, or nothing."""
    if len(text) > chars_max or "\0" in text:
        raise InvalidRequest(f"{text[:chars_max]!r} is no name of the {what}")
    return text


def read_scope(text: str) -> str:
    """Read the scope of a budget."""
    return read_optional_name(text, "scope", chars_max=SCOPE_CHARS_MAX)


def read_window(text: str) -> Window:
    """Read `day` or `month`."""
    try:
        return Window(text)
    except ValueError:
        raise InvalidRequest(f"{text[:20]!r} is neither day nor month") from None


def read_usd(text: str, *, usd_max: int) -> int:
    """Read an amount of USD as nano-USD; a dollar sign and thousands separators are taken off."""
    try:
        return nano_usd_of(text.removeprefix("$").replace(",", ""), usd_max=usd_max)
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None


def read_nano_usd(text: str) -> int:
    """Read an amount that a page of ours wrote."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise InvalidRequest("the form has no amount: open the page again")
    return int(text)


def read_moment(text: str) -> datetime:
    """Read a time that a page of ours wrote."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("the form has no time: open the page again") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def read_day(text: str) -> datetime | None:
    """Read a day as its first moment, UTC; None if there is none."""
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(f"{text[:20]!r} is not a day like 2026-11-28") from None


def end_of(day: datetime | None) -> datetime | None:
    """The first moment after a day."""
    try:
        return day + timedelta(days=1) if day else None
    except OverflowError:
        return None


def read_attempt(text: str) -> UUID:
    """Read the id of an attempt."""
    try:
        return attempt_uuid(text)
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None
