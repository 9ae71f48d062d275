"""Events of calls, answers and money."""

from callgate.domain.log_events.causes import cause_of_failure
from callgate.domain.log_events.event import NOTHING, Event, Level, Section, cause

CALL = "org_id call_type call_id generation provider model"
ATTEMPT = f"{CALL} attempt_id trace_id"
FAILURE = (
    f"{ATTEMPT} attempts kind latency_ms credential reason cause status provider_code billing cost"
)

CALLS_AND_ANSWERS = Section(
    "Calls and answers",
    (
        Event(
            "call.succeeded",
            Level.INFO,
            f"{ATTEMPT} attempts kind latency_ms input_tokens output_tokens cost",
            "A call ended with an answer. `cost` is that of all its attempts, `kind` that of the "
            "last one: `first`, `retry`, `repair` or `probe`. Left out with "
            "`CALLGATE_WORKER__LOG_SUCCESSES=false`.",
            NOTHING,
        ),
        Event(
            "call.died",
            Level.ERROR,
            FAILURE,
            "A call ended as a dead letter. The line is also that of its last attempt. `cost` is "
            "that of all its attempts; `billing` `unknown`: the last one may be billed, and its "
            "whole hold counts.",
            "See `todo` of the line; then `callgate dead-letters`.",
            cause_of_failure,
        ),
        Event(
            "call.rejected",
            Level.WARNING,
            f"{CALL} trace_id attempts reason cost",
            "A call ended without an answer: its budget, a pause, its provider or a gate refused "
            "it, or it waited for too long.",
            "See `todo` of the line.",
            cause("reason", "org_id", "provider", "model"),
        ),
        Event(
            "repair.refused",
            Level.WARNING,
            f"{CALL} trace_id attempts reason cost",
            "A repair fits no budget or limit. The call is dead with its last failure; what was "
            "paid stays posted. `reason`: the budget's refusal, or `exceeds_provider_limit`.",
            "Raise the budget or the limit, then redrive the call.",
            cause("reason", "org_id", "provider", "model"),
        ),
        Event(
            "call.cancelled",
            Level.INFO,
            f"{CALL} attempts cost",
            "A client or an operator cancelled a call. Written by the process that cancelled it.",
            NOTHING,
        ),
        Event(
            "attempt.failed",
            Level.WARNING,
            f"{FAILURE} call_state again_in_s",
            "An attempt failed, and its call goes on: it waits, or another attempt has ended it. "
            "`cost` is that of the attempt.",
            "See `todo` of the line; nothing if it is rare.",
            cause_of_failure,
        ),
        Event(
            "late_answer.posted",
            Level.INFO,
            f"{ATTEMPT} cost",
            "The answer of an attempt came after its call had ended. Its real cost was posted.",
            NOTHING,
        ),
        Event(
            "call.ledger_unavailable",
            Level.WARNING,
            "call_id reason",
            "The call could not be started because Postgres did not answer. It comes back through "
            "recovery.",
            "Restore Postgres.",
            cause(),
        ),
        Event(
            "claim.refused",
            Level.ERROR,
            "org_id call_id reason",
            "Postgres refused the row that claims this call. The call was rejected.",
            "Report it, with the reason.",
            cause("reason"),
        ),
        Event(
            "request.not_read",
            Level.ERROR,
            "org_id call_id reason",
            "The stored request cannot be read. The call was rejected and cost nothing.",
            "Submit it again; look for other software that writes to the tables.",
            cause("reason"),
        ),
        Event(
            "repair.skipped",
            Level.INFO,
            "org_id call_id reason",
            "The next attempt asks the same again instead of repairing an answer: "
            "`other_failure`, `repairs_used_up`, `several_answers` or `too_large`.",
            "If it is often `too_large`, raise `input_tokens_max`.",
            cause("reason"),
        ),
        Event(
            "broken_answer.not_read",
            Level.ERROR,
            "org_id call_id reason",
            "The answer to be repaired cannot be read. The same is asked again.",
            "Look for other software that writes to the tables.",
            cause("reason"),
        ),
        Event(
            "row.not_read",
            Level.ERROR,
            "key reason",
            "Postgres cannot return this row. It is treated as missing.",
            "Check the database for corruption.",
            cause("reason"),
        ),
        Event(
            "row.not_understood",
            Level.ERROR,
            "reason task_id",
            "A row has values that this version does not know. It is skipped.",
            "Finish the upgrade of all processes.",
            cause("reason"),
        ),
        Event(
            "schema.left_unchanged",
            Level.WARNING,
            "call_type provider why",
            "A response schema is sent with `strict: false`. Told once per schema and process. "
            "`why`: the place in the schema, and what strict does not know.",
            "Nothing, or change the schema; see docs/structured-output.md.",
        ),
        Event(
            "answer.deferred",
            Level.WARNING,
            "call_id attempt_id reason",
            "A paid answer waits in the worker's memory because Postgres does not answer.",
            "Restore Postgres before the worker is stopped.",
            cause(),
        ),
        Event(
            "reply.refused",
            Level.ERROR,
            "call_id attempt_id",
            "Postgres refused the text of a paid answer. The usage was stored and posted; the "
            "text is lost.",
            "Report it.",
            cause(),
        ),
        Event(
            "answer_check.failed",
            Level.ERROR,
            "reason",
            "The checker raised an unexpected error. The answer fails as unchecked.",
            "Report it.",
        ),
        Event(
            "answer_checks.deferred",
            Level.WARNING,
            "count",
            "Answers were not checked in time, or no checker runs. They are checked later.",
            "If it persists, look at `answer_checker.start_failed` and at the CPU.",
        ),
        Event(
            "answer_checker.ended",
            Level.WARNING,
            "is_costly reason",
            "The checker process was ended during a check. `is_costly`: the schema is not tried "
            "again for ten minutes.",
            "Simplify the schema; if the system killed it, give it memory.",
        ),
        Event(
            "answer_checker.start_failed",
            Level.ERROR,
            "reason",
            "No checker process could be started. Answers wait up to ten minutes, then fail as "
            "unchecked.",
            "Check memory and process limits.",
        ),
    ),
)

MONEY = Section(
    "Money",
    (
        Event(
            "settlement.done_in_place",
            Level.WARNING,
            "call_id attempt_id reason",
            "The log task could not be published, so the worker settled the attempt itself.",
            "Restore the broker.",
            cause(),
        ),
        Event(
            "settlement.deferred",
            Level.WARNING,
            "reason",
            "Neither the broker nor Postgres answered. Recovery settles the attempt.",
            "Restore both.",
            cause(),
        ),
        Event(
            "settlement.refused",
            Level.ERROR,
            "org_id call_id attempt_id trace_id reason",
            "Postgres refused the settlement. The call is dead and the amount posted without "
            "details.",
            "Report it; correct the amount with the provider's bill.",
            cause("reason"),
        ),
        Event(
            "attempt.not_classified",
            Level.ERROR,
            "org_id call_id attempt_id trace_id cost reason",
            "The stored attempt cannot be classified. The call is dead and the whole hold posted.",
            "Report it; correct the amount with the provider's bill.",
            cause("reason"),
        ),
        Event(
            "bill.questioned",
            Level.WARNING,
            "org_id call_type call_id attempt_id provider model trace_id cost price_source anomalies",
            "The reported usage cannot be right. A safe amount was posted.",
            "Compare it with the provider's bill.",
            cause("provider", "model"),
        ),
        Event(
            "cost.exceeded_hold",
            Level.ERROR,
            "org_id call_type call_id attempt_id provider model trace_id cost price_source hold",
            "The call cost more than was held for it. The cost was posted in full and may exceed "
            "the budget.",
            "Check the price and the token limits in the catalogue.",
            cause("provider", "model"),
        ),
        Event(
            "budget_cache.unavailable",
            Level.WARNING,
            "reason",
            "The copies of budgets that processes share cannot be read or written. Postgres is asked "
            "instead.",
            "Restore the server of `CALLGATE_CACHE_URL`.",
            cause(),
        ),
    ),
)
