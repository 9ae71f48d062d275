"""Events of redrives."""

from __future__ import annotations

from callgate.domain.log_events.event import NOTHING, Event, Level, Section

REDRIVES = Section(
    "Redrives",
    (
        Event(
            "redrive.released",
            Level.INFO,
            "calls redrive_id",
            "Calls of a redrive have their next generation. `callgate redrives show` has the outcome of each.",
            NOTHING,
        ),
        Event(
            "redrive_call.not_priced",
            Level.ERROR,
            "call_id generation reason redrive_id",
            "An unexpected error with the stored request of a call. The call is refused, the redrive goes on.",
            "Report it.",
        ),
        Event(
            "redrives.ledger_unavailable",
            Level.WARNING,
            "reason",
            "A step of a redrive was not done, or its answer was lost. It is done again, and releases nothing twice.",
            "Restore Postgres; after an upgrade run `callgate migrate`.",
        ),
        Event(
            "redrives.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the loop of redrives, which goes on.",
            "Report it, with the traceback.",
        ),
    ),
)
