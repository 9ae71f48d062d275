"""The rules of open calls: an organisation has no more than it may, and is refused only if it has as many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted

if TYPE_CHECKING:
    from tests.simulation.world import World


class OpenCallsBound:
    """How many calls of an organisation are open when it submits."""

    def __init__(self, world: World) -> None:
        self._world = world

    def submitted(self, batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
        """Compare what was stored and what was refused with the calls that are open."""
        most, check = self._world.options.open_calls_max, self._world.invariants.check
        calls = self._world.ledger.tables.calls.values()
        for new, answer in zip(batch, answers, strict=True):
            mine = sum(c.org_id == new.org_id and c.state.is_open for c in calls)
            said = f"{new.org_id} has {mine} open calls of {most}: {answer.outcome}"
            if answer.outcome is SubmitOutcome.CREATED:
                check("open_calls_are_bounded", mine <= most, said)
            if answer.outcome is SubmitOutcome.BUSY:
                self._world.scheduler.counts["submission refused: busy"] += 1
                check("only_a_full_organisation_is_busy", mine >= most, said)
                is_known = any(c.key.call_id == new.call_id and c.state.is_open for c in calls)
                check("who_joins_a_call_needs_no_room", not is_known, said)
