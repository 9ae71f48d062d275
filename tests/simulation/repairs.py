"""
What repairs must be, told from what the provider received and answered.

A repair is shown one broken answer of its own call, is held for in full, and is called what it is. There are no more of
them than the policy allows, and where one may be made it mostly is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.domain.calls import AttemptKind, AttemptStatus
from callgate.domain.requests import LLMRequest
from tests.simulation.provider import worst_nano_usd

if TYPE_CHECKING:
    from tests.simulation.world import World


LEFT_OUT_MAX = 3
"""So many chances to repair, and not one of them taken, are no coincidence."""


class Repairs:
    """Looks at each request that the provider receives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._made = self._left_out = 0

    def on_request(self, row: AttemptRow, request: LLMRequest) -> None:
        """The provider receives a request."""
        call = self._tables.calls[row.key]
        asked = LLMRequest.model_validate_json(call.request or b"")
        name = f"attempt {row.attempt}, {self._world.named(row.attempt_id)}"
        check = self._world.invariants.check
        held = f"{name} holds {row.hold_nano_usd}, and may cost {worst_nano_usd(request)}"
        check("the_worst_case_is_held", row.hold_nano_usd >= worst_nano_usd(request), held)
        own, added = (
            request.messages[: len(asked.messages)],
            request.messages[len(asked.messages) :],
        )
        check("no_result_is_of_another_request", own == asked.messages, name)
        said = f"{name} is a {row.kind} with {len(added)} messages more"
        check("a_repair_is_called_one", bool(added) is (row.kind is AttemptKind.REPAIR), said)
        if added:
            self._repairs(call, row, added[0].content)
        elif self._is_newest_broken(row) and row.kind is not AttemptKind.PROBE:
            left = self._world.catalogue.policy(call.call_type).repairs_max - self._paid(row)
            self._left_out += left > 0

    def _repairs(self, call: CallRow, row: AttemptRow, shown: str) -> None:
        name = f"attempt {row.attempt}, {self._world.named(row.attempt_id)}"
        check = self._world.invariants.check
        self._world.scheduler.counts["repair"] += 1
        self._made += 1
        bills = [self._world.bills[a.attempt_id] for a in self._failed_before(row)]
        is_it = [bill.is_cut for bill in bills if bill.text == shown] == [False]
        check("a_repair_shows_what_is_broken", is_it, f"{name} shows {shown}")
        most = self._world.catalogue.policy(call.call_type).repairs_max
        said = f"{name} comes after {self._paid(row)} repairs"
        check("repairs_are_few", self._paid(row) < most, said)

    def at_rest(self) -> None:
        """A worker that read its call before the answer was settled asks the same again, but that is rare."""
        said = f"{self._left_out} attempts asked the same again, {self._made} were repairs"
        is_rare = self._made > 0 or self._left_out < LEFT_OUT_MAX
        self._world.invariants.check("what_may_be_repaired_is", is_rare, said)

    def _paid(self, row: AttemptRow) -> int:
        """Repairs of the same call before that the provider answered, or may have."""
        before = [a for a in self._tables.attempts_of[row.key] if a.attempt < row.attempt]
        repairs = [a for a in before if a.kind is AttemptKind.REPAIR]
        return sum(
            a.status is AttemptStatus.UNKNOWN or self._is_paid(a.attempt_id) for a in repairs
        )

    def _is_paid(self, attempt_id: UUID) -> bool:
        row, bill = self._tables.attempts[attempt_id], self._world.bills.get(attempt_id)
        return bill is not None and not bill.is_free and row.reply is not None

    def _failed_before(self, row: AttemptRow) -> list[AttemptRow]:
        """The attempts before it that have failed although they have a reply, oldest first."""
        before = [a for a in self._tables.attempts_of[row.key] if a.attempt < row.attempt]
        return [a for a in before if a.status is AttemptStatus.FAILED and a.reply is not None]

    def _is_newest_broken(self, row: AttemptRow) -> bool:
        """True if the answer of the attempt just before breaks the schema."""
        newest = [a for a in self._failed_before(row) if a.attempt == row.attempt - 1]
        return any(json.loads(a.error or "{}").get("code") == "invalid_output" for a in newest)
