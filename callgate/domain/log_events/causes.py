"""What makes two failures the same cause."""

from __future__ import annotations

from typing import Any

from callgate.domain.breaker import KEY_REFUSED_CODES
from callgate.domain.log_events.event import Line


def cause_of_failure(line: Line) -> tuple[Any, ...]:
    """A refused key is one cause, whatever was asked; other failures may differ by call type and model."""
    reason, provider = line.get("reason"), line.get("provider")
    if reason in KEY_REFUSED_CODES:
        return (reason, provider, line.get("credential"))
    return (reason, provider, line.get("model"), line.get("call_type"))
