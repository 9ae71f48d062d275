"""Planted defects of answers: they are lost, recorded too late, or called unknown too early."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.ledger import Reaper, RecordAnswer, RecordOutcome
from callgate.services.llm_service import LLMService
from callgate.services.retrying_ledger import RetryingLedger
from tests.simulation.faulty_ledger import FaultyLedger
from tests.simulation.mutations.registry import Patched, both, caught_by


@caught_by("recorded_before_logged")
def publish_the_log_before_the_record() -> Patched:
    """The log task may come before there is anything to log."""

    async def hasty(self: Any, ref: Any, answer: Any, latency_ms: int) -> None:
        await self._settle_tasks.publish(ref)
        await self._recorder.record(ref, answer, latency_ms)

    return patch.object(LLMService, "_finish", hasty)


@caught_by("an_outage_makes_nothing_unknown", "recorded_before_logged", outage_begins=0.1)
def give_up_an_answer_in_an_outage() -> Patched:
    """One try to record, and the paid answer is gone."""

    async def once(self: RetryingLedger, record: RecordAnswer) -> RecordOutcome:
        return await self._ledger.record(record)

    return patch.object(RetryingLedger, "record", once)


@caught_by("an_outage_makes_nothing_unknown", outage_begins=0.1, seed=83)
def give_up_a_claim_in_an_outage() -> Patched:
    """A claim whose answer was lost is left to its lease."""
    retry = RetryingLedger.retry_while_unavailable
    return patch.object(
        RetryingLedger,
        "retry_while_unavailable",
        lambda self, step, give_up_after_s=None: retry(self, step, 5.0),
    )


@caught_by("an_outage_makes_nothing_unknown", outage_begins=0.3, pauses=0, dies_after_statement=0)
def expire_during_an_outage() -> Patched:
    """Attempts are called lost as soon as the ledger is back, before anybody could record."""
    due = FaultyLedger.take_due

    def hasty(self: FaultyLedger, **options: Any) -> Any:
        return due(self, **{**options, "reaper": Reaper(self.owner.name, 0.0)})

    return both(
        patch.object(FaultyLedger, "take_due", hasty),
        patch.object(memory_ledger, "may_reap", lambda *_: True),
    )


@caught_by(
    "an_outage_makes_nothing_unknown",
    outage_begins=0.3,
    pauses=0,
    dies_after_statement=0,
    answer_lost=0,
    lands_late=0,
)
def expiry_asks_nobodys_lease() -> Patched:
    """A due query that is given up in an outage, and that the ledger executes when it is back, may expire."""
    due = FaultyLedger.take_due

    def trusted(self: FaultyLedger, **options: Any) -> Any:
        if self.world.is_ledger_away():
            options["reaper"] = Reaper(self.owner.name, 0.0)
        return due(self, **options)

    return both(
        patch.object(FaultyLedger, "take_due", trusted),
        patch.object(memory_ledger, "may_reap", lambda *_: True),
    )


@caught_by("an_answer_is_kept", pauses_while_asking=0.4)
def drop_a_late_answer() -> Patched:
    """What is unknown stays unknown."""
    record = memory_posting.record

    def dropped(tables: MemoryTables, answer: Any, now: Any) -> RecordOutcome:
        row = tables.attempt(answer.ref)
        if row is not None and row.status is AttemptStatus.UNKNOWN:
            return RecordOutcome.CLOSED
        return record(tables, answer, now)

    return patch.object(memory_posting, "record", dropped)


@caught_by("the_first_success_ends_it", pauses_while_asking=0.4)
def let_only_the_current_attempt_end_a_call() -> Patched:
    """A late success is posted, and the call is made again all the same."""
    move = memory_posting._move

    def moved(tables: Any, call: Any, attempt: Any, *rest: Any) -> None:
        is_current = call.attempt_id == attempt.attempt_id and call.state is CallState.RUNNING
        if is_current or not call.state.is_open:
            move(tables, call, attempt, *rest)

    return patch.object(memory_posting, "_move", moved)


@caught_by("an_answer_is_kept", pauses_while_asking=0.4)
def forget_which_attempt_won() -> Patched:
    """The call succeeds, and shows the newest attempt, which has no answer."""
    succeed = memory_posting._succeed

    def succeeded(tables: MemoryTables, call: Any, *rest: Any) -> None:
        newest = call.attempt_id
        succeed(tables, call, *rest)
        call.attempt_id = newest

    return patch.object(memory_posting, "_succeed", succeeded)
