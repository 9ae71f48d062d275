"""Ports of operators that a caller of `Client` may replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callgate.domain.dead_letters import EndedCallsPort
    from callgate.domain.operator_ports import RetentionPort
    from callgate.domain.redrive_ports import RedrivesPort


@dataclass(frozen=True, slots=True)
class OperatorPorts:
    """Ports that replace those of Postgres; None: not replaced."""

    retention: RetentionPort | None = None
    ended: EndedCallsPort | None = None
    redrives: RedrivesPort | None = None
