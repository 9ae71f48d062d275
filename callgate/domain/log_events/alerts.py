"""Events of alerts."""

from callgate.domain.log_events.event import NOTHING, Event, Level, Section, cause

ALERTS = Section(
    "Alerts",
    (
        Event(
            "alert.raised",
            Level.WARNING,
            "alert_id detail kind message org_id subject",
            "A condition of docs/alerts.md holds. All workers together log it once, or again after a "
            "worker was killed.",
            "What `todo` says.",
        ),
        Event(
            "alert.resolved",
            Level.INFO,
            "alert_id kind org_id subject",
            "The condition of an alert has gone.",
            NOTHING,
        ),
        Event(
            "alert.deferred",
            Level.WARNING,
            "alert_id kind reason",
            "The webhook did not accept a message. It is sent again, ever less often.",
            "See the receiver, and CALLGATE_WORKER__ALERT_WEBHOOK_URL.",
            cause("reason"),
        ),
        Event(
            "alert.abandoned",
            Level.ERROR,
            "alert_id kind reason",
            "The webhook accepted a message for no try in `dead_after_days`. It is not sent again.",
            "Repair the receiver, then `callgate alerts replay --dead`.",
        ),
        Event(
            "alerts.ledger_unavailable",
            Level.WARNING,
            "reason",
            "Postgres did not answer the loop of alerts. What is to be alerted is seen later.",
            "Restore Postgres.",
            cause(),
        ),
        Event(
            "alerts.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the loop of alerts, which goes on.",
            "Report it, with the traceback.",
        ),
    ),
)
