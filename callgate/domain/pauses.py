"""
Pauses: which calls an operator keeps from being sent, and why.

A paused call waits and holds nothing. What is in flight ends as usual. A *freeze* is the pause of one organisation
whose new submissions are refused too. The ledger decides both in `reserve` and `submit`. The Postgres functions follow
these rules; the contract tests run against both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from callgate.domain.reports import By

PAUSED_CODE = "paused"
"""Why a paused call waits, or was rejected after it had waited too long."""


@dataclass(frozen=True, slots=True)
class PauseKey:
    """Which calls a pause covers. An empty name covers any."""

    provider: str = ""
    model: str = ""
    call_type: str = ""
    org_id: str = ""
    is_freeze: bool = False
    """Whether new submissions are refused too. A freeze names one organisation and nothing else."""

    def __post_init__(self) -> None:
        if self.is_freeze and (not self.org_id or self.provider or self.model or self.call_type):
            raise ValueError("a freeze is of one organisation")

    def covers(self, org_id: str, call_type: str, provider: str, model: str) -> bool:
        """True if such a call is paused."""
        pairs = (
            (self.org_id, org_id),
            (self.call_type, call_type),
            (self.provider, provider),
            (self.model, model),
        )
        return all(named in ("", name) for named, name in pairs)

    def __str__(self) -> str:
        """What is paused, as the action log names it."""
        names = (
            ("provider", self.provider),
            ("model", self.model),
            ("call type", self.call_type),
            ("organisation", self.org_id),
        )
        return ", ".join(f"{kind} {name}" for kind, name in names if name) or "everything"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that holds now."""

    key: PauseKey
    by: By
    """Who paused it, and why."""
    at: datetime
    waiting: int = 0
    """Calls that wait because they are paused, and that it covers. Another pause may cover them too."""


def already_paused(key: PauseKey) -> str:
    """Why a pause was not begun."""
    return f"{key} is {'frozen' if key.is_freeze else 'paused'} already"


def paused_again(key: PauseKey) -> str:
    """Why a pause was not ended: it is not the one that the operator saw."""
    state = "frozen" if key.is_freeze else "paused"
    return f"{key} was {state} again meanwhile"


def paused_json(reason: str) -> str:
    """Why a call waits, as JSON. It names no organisation: a pause may be about another one too."""
    message = f"paused by an operator: {reason}"
    return json.dumps({"code": PAUSED_CODE, "message": message})
