"""Events of recovery, sessions of clients, quarantine and retention."""

from callgate.domain.log_events.event import Event, Level, Section, cause

RECOVERY = Section(
    "Recovery",
    (
        Event(
            "recovery.step_failed",
            Level.WARNING,
            "reason step",
            "A step of recovery fails. Logged once until it succeeds.",
            "Restore Postgres.",
        ),
        Event(
            "recovery.step_recovered",
            Level.INFO,
            "step",
            "The step succeeds again.",
            "Nothing.",
        ),
        Event(
            "recovery.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the recovery loop, which goes on.",
            "Report it, with the traceback.",
        ),
        Event(
            "workers.lost",
            Level.WARNING,
            "worker_ids",
            "The leases of these worker processes have expired. Their attempts expire too.",
            "Find out why they ended: memory, node, deployment.",
        ),
        Event(
            "attempts.expired",
            Level.WARNING,
            "count",
            "Attempts of lost workers, or past their deadline, were expired.",
            "See `workers.lost`.",
        ),
        Event(
            "lost_messages.republished",
            Level.INFO,
            "count",
            "A sweep found queued calls without a message, and published them again.",
            "If it persists: does the broker evict or lose keys?",
        ),
        Event(
            "publication.deferred",
            Level.WARNING,
            "count reason",
            "Due calls could not be published. The next run does it.",
            "Restore the broker.",
        ),
        Event(
            "sweep.publish_failed",
            Level.WARNING,
            "reason",
            "A sweep could not be published.",
            "Restore the broker.",
            cause(),
        ),
        Event(
            "submission.publish_failed",
            Level.WARNING,
            "count reason",
            "A client stored calls and could not publish them. Recovery does it.",
            "Restore the broker.",
        ),
        Event(
            "worker_lease.expired",
            Level.WARNING,
            "worker_id",
            "This worker's own lease has expired: Postgres was away, or the process stopped, for "
            "too long. Its calls in flight are lost.",
            "Check Postgres, and the worker's CPU.",
        ),
        Event(
            "worker_lease.ledger_unavailable",
            Level.WARNING,
            "reason",
            "The lease could not be renewed or released. It is tried again.",
            "Restore Postgres.",
            cause(),
        ),
        Event(
            "worker_lease.renewal_failed",
            Level.ERROR,
            "",
            "An unexpected error while the lease was renewed. It is tried again.",
            "Report it, with the traceback.",
        ),
    ),
)

SESSIONS_OF_CLIENTS = Section(
    "Sessions of clients",
    (
        Event(
            "client_session.ended",
            Level.WARNING,
            "locks login pid",
            "A client's session held so many locks that others could soon have none. It was ended.",
            "Ask the owner of the login what it does.",
        ),
        Event(
            "client_session.end_failed",
            Level.WARNING,
            "locks login pid",
            "Such a session was found and could not be ended.",
            "End it as a superuser; run `callgate migrate`, which says what to grant.",
        ),
        Event(
            "lock_watch.ledger_unavailable",
            Level.WARNING,
            "reason",
            "The watch of locks cannot ask Postgres. Logged once until it can.",
            "Restore Postgres.",
        ),
        Event(
            "lock_watch.failed",
            Level.ERROR,
            "",
            "An unexpected error in the watch of locks, which goes on.",
            "Report it, with the traceback.",
        ),
    ),
)

QUARANTINE = Section(
    "Quarantine",
    (
        Event(
            "quarantine.call_started",
            Level.INFO,
            "call_id pid",
            "A call whose worker was lost now runs in its own child process.",
            "Nothing.",
            cause(),
        ),
        Event(
            "quarantine.process_lost",
            Level.ERROR,
            "call_id pid reason",
            "The child process ended, or was killed as stuck, during the call. It counts as a "
            "lost worker.",
            "Look for what the call does to memory or CPU.",
        ),
        Event(
            "quarantine.start_failed",
            Level.ERROR,
            "reason",
            "No child process could be started. Quarantined calls wait.",
            "Check memory and process limits.",
        ),
        Event(
            "forked_child.failed",
            Level.ERROR,
            "pid",
            "A child process raised an error.",
            "Read the traceback.",
        ),
        Event(
            "forked_child.died",
            Level.WARNING,
            "exit_code pid",
            "A child process ended with an error, or by a signal (negative code).",
            "-9: look for the kernel's out-of-memory log.",
        ),
    ),
)

RETENTION = Section(
    "Retention",
    (
        Event(
            "bodies.purged",
            Level.INFO,
            "calls unprocessable_messages",
            "Bodies past their retention period were deleted.",
            "Nothing.",
        ),
        Event(
            "log_partition.archived",
            Level.INFO,
            "attempts partition",
            "A month of the log was summed and dropped.",
            "Nothing.",
        ),
        Event(
            "log_partition.deferred",
            Level.WARNING,
            "partition unknown_bills",
            "A month cannot be archived yet, for attempts whose bill is unknown, or that are not "
            "settled.",
            "Settle unknown bills by hand.",
        ),
        Event(
            "log_partitions.not_created",
            Level.WARNING,
            "hint months",
            "Monthly partitions could not be made beside a large default partition.",
            "See the hint.",
        ),
        Event(
            "log_rows.not_partitioned",
            Level.WARNING,
            "hint rows",
            "Rows of the log are in the default partition.",
            "Nothing, unless it grows.",
        ),
        Event(
            "retention.ledger_unavailable",
            Level.WARNING,
            "reason",
            "Retention did not run. It runs again later.",
            "Restore Postgres; after an upgrade run `callgate migrate`.",
            cause(),
        ),
        Event(
            "retention.failed",
            Level.ERROR,
            "",
            "An unexpected error in retention, which runs again later.",
            "Report it, with the traceback.",
        ),
        Event(
            "sums.drifted",
            Level.ERROR,
            "calls_with_missing_rows day drift_nano_usd rows_without_call wrong_budgets wrong_sums",
            "Sums of a day in UTC are not what its rows say. This is found again every hour until they are right.",
            "Run `callgate audit`; see ADR 25.",
        ),
        Event(
            "sums.filled",
            Level.INFO,
            "day",
            "A day of before an upgrade was summed up.",
            "Nothing.",
        ),
        Event(
            "sums.ledger_unavailable",
            Level.WARNING,
            "reason",
            "Deltas could not be moved into the sums. It is tried again; reports count them as they are.",
            "Restore Postgres; after an upgrade run `callgate migrate`.",
        ),
        Event(
            "sums.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the loop that keeps the sums, which goes on.",
            "Report it, with the traceback.",
        ),
    ),
)
