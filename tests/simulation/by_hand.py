"""The rules of settling by hand: what was seen is what is changed, and what an operator said is what is posted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow
from callgate.domain.calls import AttemptStatus, CallKey
from callgate.domain.unknown import HandOutcome, SettleByHand, SettledByHand

if TYPE_CHECKING:
    from tests.simulation.world import World


class ByHand:
    """What operators settled, as they said it, and what attempts posted before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows = world.ledger.tables.attempts
        self._said: dict[UUID, int] = {}
        self._posted: dict[UUID, int] = {}
        """What each attempt was last seen to post."""

    def after(
        self, batch: Sequence[SettleByHand], answers: Sequence[SettledByHand]
    ) -> Iterable[CallKey]:
        """Check what a statement settled; return the calls it touched."""
        check, counts = self._world.invariants.check, self._world.scheduler.counts
        for s, answer in zip(batch, answers, strict=True):
            row = self._rows[s.attempt_id]
            name, posted = self._world.named(s.attempt_id), self._posted.get(s.attempt_id)
            is_new = answer.outcome is HandOutcome.SETTLED
            counts[f"by hand: {answer.outcome}"] += 1
            told = f"{name} posted {posted}, was seen with {s.seen_posted_nano_usd}"
            check(
                "by_hand_only_what_was_seen", not is_new or posted == s.seen_posted_nano_usd, told
            )
            if is_new:
                self._said[s.attempt_id] = s.billed_nano_usd
            expected = self._said[s.attempt_id] if answer.outcome.is_done else posted
            told = f"{name} posts {row.posted_nano_usd}, {answer.outcome}: {s.billed_nano_usd}"
            check("by_hand_posts_what_was_said", row.posted_nano_usd == expected, told)
            yield row.key

    def saw(self, row: AttemptRow) -> None:
        """Remember what an attempt posts."""
        if row.posted_nano_usd is not None:
            self._posted[row.attempt_id] = row.posted_nano_usd

    def amount(self, row: AttemptRow) -> int:
        """What an attempt has to post while nobody knows its bill: what an operator said, else its whole hold."""
        return self._said.get(row.attempt_id, row.hold_nano_usd)

    def at_rest(self, row: AttemptRow) -> None:
        """A late answer was settled, whatever an operator did meanwhile."""
        is_left = row.status is AttemptStatus.UNKNOWN and row.finished_at is not None
        is_left = is_left and row.posted_at is not None and row.finished_at > row.posted_at  # type: ignore[operator]
        self._world.invariants.check(
            "a_late_answer_is_settled", not is_left, self._world.named(row.attempt_id)
        )
