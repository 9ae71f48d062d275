"""
Every event that callgate logs: its level, its fields, what it means and what to do.

`docs/log-events.md` is written from this table by `python -m tests.support.log_events_page`. A test compares the table
with the calls in the code. A line of the log says what to do in the words of this table (`worker.log_config`).
"""

from __future__ import annotations

from callgate.domain.log_events.alerts import ALERTS
from callgate.domain.log_events.calls import CALLS_AND_ANSWERS, MONEY
from callgate.domain.log_events.delivery import LIMITS_OF_PROVIDERS, LINKS_AND_BREAKERS
from callgate.domain.log_events.event import NOTHING, Event, Level, Section
from callgate.domain.log_events.processes import BROKER_AND_WORKER_PROCESS, FLOWER
from callgate.domain.log_events.recovery import (
    QUARANTINE,
    RECOVERY,
    RETENTION,
    SESSIONS_OF_CLIENTS,
)
from callgate.domain.log_events.redrives import REDRIVES

__all__ = ["EVENTS", "NOTHING", "SECTIONS", "Event", "Level", "Section"]

SECTIONS = (
    CALLS_AND_ANSWERS,
    MONEY,
    RECOVERY,
    SESSIONS_OF_CLIENTS,
    QUARANTINE,
    LINKS_AND_BREAKERS,
    LIMITS_OF_PROVIDERS,
    ALERTS,
    REDRIVES,
    RETENTION,
    BROKER_AND_WORKER_PROCESS,
    FLOWER,
)
EVENTS = {event.name: event for section in SECTIONS for event in section.events}
