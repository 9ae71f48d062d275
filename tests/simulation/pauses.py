"""
The rules of pauses: nothing new is sent, who is paused holds nothing and is left alone, and who is resumed moves on.

Nothing here asks `callgate.domain.pauses` what a pause covers. What is paused is what operators have said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.ledger import NewSubmission, Reserve
from callgate.domain.pauses import PauseKey
from tests.simulation.row_rules import end_of_refused

if TYPE_CHECKING:
    from tests.simulation.world import World

PAUSED = "paused"


class Pauses:
    """What operators have paused and frozen, and what the ledger does about it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._holds: dict[PauseKey, str] = {}
        """With the reason that its operator gave."""
        self._asleep: dict[CallKey, datetime] = {}
        """When those were due that slept after the statement before, and are to be left alone while they are paused."""
        self._known: set[UUID] = set()

    @property
    def _now(self) -> datetime:
        return self._world.scheduler.time()

    def covers(self, call: CallRow) -> bool:
        """True if operators have paused a call."""
        return any(_is_meant(key, call) for key in self._holds)

    def is_whole(self, org_id: str) -> bool:
        """True if all calls of an organisation are paused."""
        return any(_is_whole(key, org_id) for key in self._holds)

    # At a submission.

    def submitted(self, batch: Sequence[NewSubmission], result: object) -> bool:
        """Whether a batch was taken: a frozen organisation submits nothing new, and all others may."""
        check, is_refused = self._world.invariants.check, isinstance(result, OrganisationFrozen)
        frozen = [
            new
            for new in batch
            if PauseKey(org_id=new.org_id, is_freeze=True) in self._holds
            if new.submission_id not in self._known
        ]
        orgs = sorted({new.org_id for new in batch})
        if not is_refused:
            check("a_frozen_organisation_submits_nothing_new", not frozen, orgs)
            stored = self._tables.submissions.keys()
            self._known |= {new.submission_id for new in batch} & stored
            return True
        self._world.scheduler.counts["submission refused: frozen"] += 1
        check("only_frozen_organisations_are_refused", frozen, f"{orgs}: {result}")
        new_ids = {new.submission_id for new in batch} - self._known
        is_stored = new_ids & self._tables.submissions.keys()
        check("a_frozen_organisation_submits_nothing_new", not is_stored, orgs)
        return False

    # At a claim.

    def admitted(self, call: CallRow) -> None:
        """A call is sent now: it is not paused."""
        name = self._world.named(call.key)
        self._world.invariants.check(
            "nothing_new_is_sent_while_paused", not self.covers(call), name
        )

    def is_refused(self, call: CallRow) -> bool:
        """True if a call was refused because it is paused."""
        return PAUSED in (call.wait_reason, call.end_reason)

    def refused_by_others(self, call: CallRow) -> None:
        """A call was refused for another reason: a pause is asked first, so that it rejects nobody."""
        name = self._world.named(call.key)
        said = f"{name} is paused, and {call.state}: {call.error}"
        self._world.invariants.check("a_pause_is_asked_first", not self.covers(call), said)

    def refused(self, call: CallRow, claim: Reserve, until: datetime) -> None:
        """A call is paused: it waits, within bounds, and holds nothing; or it has waited long enough."""
        check, name, now = self._world.invariants.check, self._world.named(call.key), self._now
        self._world.scheduler.counts["refused: paused"] += 1
        reasons = [reason for key, reason in self._holds.items() if _is_meant(key, call)]
        check("only_what_is_paused_waits_for_an_operator", reasons, name)
        says_why = any(reason in (call.error or "") for reason in reasons)
        check("who_waits_says_why", says_why, f"{name}: {call.error}")
        rows = self._tables.attempts_of[call.key]
        has_money = call.requested_hold_nano_usd or any(not row.status.is_posted for row in rows)
        is_in_line = call.waits_for is not None or call.is_in_line
        check("who_waits_holds_nothing", not (has_money or is_in_line), name)
        if call.state is CallState.WAITING:
            is_bounded = call.due_at is not None and now < call.due_at <= until
            check("nobody_waits_too_long_for_an_operator", is_bounded, name)
        else:
            self._world.scheduler.counts["rejected: paused"] += 1
            is_over = call.state is end_of_refused(call, claim) and until <= now
            check("nobody_is_rejected_before_its_wait_is_over", is_over, name)

    # After a statement.

    def hear(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
        """An operator pauses or resumes."""
        if name == "pause":
            self._holds[arguments[0]] = options["by"].reason
        if name == "resume":
            ended = self._holds.pop(arguments[0], None)
            self._world.scheduler.counts["resumed"] += ended is not None

    def after(self, name: str) -> None:
        """Nobody is woken who is paused, or left who is not."""
        self._are_left_alone()
        if name in ("resume", "take_due"):
            self._move_on()
        self._asleep = {
            call.key: call.due_at
            for call in self._tables.calls.values()
            if call.due_at is not None and call.due_at > self._now and self._waits_in_a_line(call)
        }

    def _are_left_alone(self) -> None:
        for key, due_at in self._asleep.items():
            call = self._tables.calls[key]
            if call.state is not CallState.WAITING or call.due_at is None or due_at <= self._now:
                continue
            said = f"{self._world.named(key)} is paused, and is woken"
            is_woken = call.due_at <= self._now and self._waits_in_a_line(call)
            check = self._world.invariants.check
            check("who_is_paused_is_left_alone", not is_woken, said)

    def _waits_in_a_line(self, call: CallRow) -> bool:
        """True if a call is paused, and waits for something that others may be given instead."""
        if not self.covers(call) or call.state is not CallState.WAITING:
            return False
        if call.wait_reason is WaitReason.BACKLOG:
            return self.is_whole(call.org_id)
        is_paused = call.wait_reason is WaitReason.PAUSED
        return is_paused or call.waits_for is not None or call.is_in_line

    def _move_on(self) -> None:
        waiting = (c for c in self._tables.calls.values() if c.wait_reason is WaitReason.PAUSED)
        for call in waiting:
            is_asleep = call.due_at is not None and call.due_at > self._now
            is_left = is_asleep and not self.covers(call) and call.key not in self._tables.locked
            name = self._world.named(call.key)
            self._world.invariants.check("who_is_resumed_moves_on", not is_left, name)


def _is_meant(key: PauseKey, call: CallRow) -> bool:
    is_org, is_type = key.org_id in ("", call.org_id), key.call_type in ("", call.call_type)
    return (
        is_org and is_type and key.provider in ("", call.provider) and key.model in ("", call.model)
    )


def _is_whole(key: PauseKey, org_id: str) -> bool:
    return not (key.provider or key.model or key.call_type) and key.org_id in ("", org_id)
