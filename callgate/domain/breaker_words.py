"""What is said of breakers: that one changed, and why a call waits for one."""

from __future__ import annotations

import json
from dataclasses import dataclass

from callgate.domain.breaker import UNAVAILABLE_CODE, Breaker
from callgate.domain.limits import LIMITED_CODE


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker that was opened or closed."""

    provider: str
    model: str
    credential: str
    org_id: str
    """Whose calls it guards; empty: the shared one."""
    is_open: bool
    reason: str | None

    @classmethod
    def from_json(cls, text: str) -> BreakerChange:
        """Read what the settle function wrote."""
        return cls(**json.loads(text))


def unavailable_json(refusing: Breaker) -> str:
    """The error of a call that waits for a breaker, as stored in `llm_call.error`."""
    whose = f" for {refusing.org_id}" if refusing.org_id else ""
    cause = f" ({refusing.cause})" if refusing.cause else ""
    why = (
        f"is left alone{whose}: {refusing.reason}{cause}"
        if refusing.reason
        else "has few attempts on trial"
    )
    message = f"{refusing.provider}/{refusing.model} {why}"
    code = LIMITED_CODE if refusing.is_rate_limited else UNAVAILABLE_CODE
    return json.dumps({"code": code, "message": message})
