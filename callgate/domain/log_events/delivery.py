"""Events of links, breakers and limits of providers."""

from callgate.domain.log_events.event import Event, Level, Section, cause

LINKS_AND_BREAKERS = Section(
    "Links and breakers",
    (
        Event(
            "links.deferred",
            Level.WARNING,
            "calls reason",
            "Links of ended calls could not be published. They are delivered later.",
            "Restore the broker or Postgres.",
        ),
        Event(
            "links.ledger_unavailable",
            Level.WARNING,
            "reason",
            "Postgres or the broker did not answer, so no links were delivered.",
            "Restore it.",
            cause(),
        ),
        Event(
            "links.not_delivered",
            Level.ERROR,
            "count org_id reason",
            "Links were refused by the broker. They are tried again, ever less often.",
            "Check the link's queue and the broker's rights.",
        ),
        Event(
            "links.abandoned",
            Level.ERROR,
            "count org_id reason",
            "Links can never be delivered, or were refused for too long.",
            "Tell the organisation; it can read the results.",
        ),
        Event(
            "link_outcome.not_stored",
            Level.ERROR,
            "reason submission_id",
            "A link was published, and Postgres refused to store that. It may be delivered again.",
            "Report it.",
            cause("reason"),
        ),
        Event(
            "delivery.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the delivery loop, which goes on.",
            "Report it, with the traceback.",
        ),
        Event(
            "breaker.opened",
            Level.ERROR,
            "credential model org_id provider reason",
            "Calls to this provider wait: it refuses them, or the credential. With `rate_limited` "
            "the key is blocked for a while.",
            "See the reason: key, account, provider's status. For `rate_limited`: declare the "
            "limit, see docs/flow-control.md.",
        ),
        Event(
            "breaker.closed",
            Level.WARNING,
            "credential model org_id provider",
            "The provider is called again.",
            "Nothing.",
        ),
    ),
)

LIMITS_OF_PROVIDERS = Section(
    "Limits of providers",
    (
        Event(
            "limits.ledger_unavailable",
            Level.WARNING,
            "reason",
            "Limits could not be published or written. It is tried again. Limits that the ledger "
            "has go on counting.",
            "Restore Postgres; after an upgrade run `callgate migrate`.",
            cause(),
        ),
        Event(
            "limits.loop_failed",
            Level.ERROR,
            "",
            "An unexpected error in the loop that publishes limits, which goes on. What this "
            "worker declares may not count.",
            "Report it, with the traceback.",
        ),
        Event(
            "limit.learned",
            Level.INFO,
            "amount credential measure model provider window_s",
            "A provider named this limit in a response, for the first time or with another amount.",
            "Nothing.",
        ),
    ),
)
