"""Planted defects seen by submitters: duplicates, keys, organisations, links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from uuid import UUID

from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.memory.rows import SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import identity
from callgate.domain.calls import Bodies, CallState
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.reports import EndReason
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.delivery import DeliveryService
from tests.simulation.faulty_ledger import FaultyLedger
from tests.simulation.mutations.registry import Patched, both, caught_by


@caught_by("whatever_is_left_is_due", "sums_equal_rows", seed=71)
def join_without_the_lock() -> Patched:
    """A submission is added to a call that was open when it looked, and may have ended since."""
    submit = FaultyLedger.submit

    def unlocked(self: FaultyLedger, batch: Sequence[Any]) -> list[Submitted]:
        tables = self.world.ledger.tables
        new, call = batch[0], tables.newest(batch[0].call_id)
        is_known = new.submission_id in tables.submissions or new.idempotency_key
        if len(batch) > 1 or is_known or call is None or not call.state.is_open:
            return submit(self, batch)
        self.world.scheduler.wait(self.world.rng.uniform(0, 15), self.owner)
        joined = SubmissionRow(
            new.submission_id, call.key, SubmitOutcome.JOINED, new.link, call.created_at
        )
        tables.add_submission(joined)
        return [Submitted(new.submission_id, SubmitOutcome.JOINED, call.key, call.state)]

    return patch.object(FaultyLedger, "submit", unlocked)


@caught_by("a_duplicate_starts_nothing")
def every_submission_starts_a_call() -> Patched:
    """Nothing collapses."""
    return patch.object(memory_ledger, "_outcome", lambda new, newest: SubmitOutcome.CREATED)


@caught_by("no_submission_is_lost")
def drop_the_link_of_a_duplicate() -> Patched:
    """A submission that joins is not told."""
    add = MemoryTables.add_submission

    def silent(self: MemoryTables, row: Any) -> None:
        is_joined = row.outcome is SubmitOutcome.JOINED
        add(self, replace(row, link=None) if is_joined else row)

    return patch.object(MemoryTables, "add_submission", silent)


@caught_by("no_result_is_of_another_request")
def hash_without_the_prompt() -> Patched:
    """All requests to one model get the same answer."""
    return patch.object(identity, "IN_IDENTITY", identity.IN_IDENTITY - {"messages"})


@caught_by("a_duplicate_starts_nothing", much_redriven=1, bad_request=0.3)
def redrive_what_has_succeeded_since() -> Patched:
    """Two operators redrive the same dead letter, and the second pays for it again."""
    outcome = memory_ledger._outcome

    def again(new: Any, newest: Any) -> SubmitOutcome:
        if newest is not None and new.inherit_links and newest.state is CallState.SUCCEEDED:
            return SubmitOutcome.CREATED
        return outcome(new, newest)

    return patch.object(memory_ledger, "_outcome", again)


@caught_by("a_key_names_one_request")
def ignore_idempotency_keys() -> Patched:
    """A key may name anything."""
    return patch.object(MemoryLedger, "_is_key_used", lambda self, new: False)


@caught_by("no_result_crosses_an_org")
def hash_without_the_org() -> Patched:
    """Tenants that ask the same share the answer, and the ledger finds that right."""
    call_id = identity.call_id

    def shared(org_id: str, input_hash: bytes) -> UUID:
        return call_id("", input_hash)

    return both(
        patch.object(identity, "call_id", shared), patch.object(memory_ledger, "call_id", shared)
    )


@caught_by("told_what_is_true")
def deliver_before_settling() -> Patched:
    """Submitters hear of a success that the ledger does not have yet."""
    settle = AICallLogger.settle

    def early(self: Any, refs: Sequence[Any], **options: Any) -> Any:
        for view in self._ledger.read(refs, Bodies.NONE):
            for row in self._ledger.world.ledger.tables.submissions_of[view.key]:
                if row.link:
                    told = Delivery(row.submission_id, view.key, CallState.SUCCEEDED, row.link)
                    self._delivery._queue.publish_links([told])
        return settle(self, refs, **options)

    return patch.object(AICallLogger, "settle", early)


@caught_by("everybody_is_told", broker_refuses=0.3)
def mark_a_link_before_it_is_published() -> Patched:
    """A crash, or a broker that is away, between the two loses it."""
    publish = DeliveryService._publish

    def marked(self: Any, links: Sequence[Delivery]) -> None:
        if links:
            self._ledger.keep_link_outcomes([LinkOutcome(link.submission_id) for link in links])
        publish(self, links)

    return patch.object(DeliveryService, "_publish", marked)


@caught_by("whatever_is_left_is_due")
def a_replayed_link_is_not_due() -> Patched:
    """A link on a call that has ended waits for somebody to look."""

    def silent(self: Any, new: Any, call: Any, outcome: SubmitOutcome, now: Any) -> None:
        before = dict(self.tables.undelivered)
        add(self, new, call, outcome, now)
        self.tables.undelivered = before

    add = MemoryLedger._add_submission
    return patch.object(MemoryLedger, "_add_submission", silent)


@caught_by("a_redrive_tells_all", much_redriven=1, bad_request=0.3)
def a_redrive_inherits_no_links() -> Patched:
    """The submitters of the dead call never hear of the next one."""
    return patch.object(MemoryLedger, "_inherit_links", lambda *_: None)


@caught_by("an_end_is_an_end", slow_reply=0.5)
def cancel_a_call_that_runs() -> Patched:
    """Its request is on its way, and paid."""
    return patch.object(EndReason, "ends", property(lambda _: tuple(CallState)))
