"""How times are written for people."""

from __future__ import annotations

from datetime import UTC, datetime


def minute_of(at: datetime) -> str:
    """`2026-12-01 00:00 UTC`, whatever zone the time is in."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
