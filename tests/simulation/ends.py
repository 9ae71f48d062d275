"""What must be true of attempts and answers once everything has come to its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow
from callgate.domain.calls import Bodies
from callgate.domain.ledger import NewSubmission, Submitted
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import WORKER_LOST
from callgate.services.results import error_of, result_of
from tests.simulation.row_rules import A, S

if TYPE_CHECKING:
    from tests.simulation.by_hand import ByHand
    from tests.simulation.world import World

CHANGES_THE_ANSWER = ("call_type", "model", "messages", "max_output_tokens", "response_schema")
"""In what the requests of a seed differ."""


class Ends:
    """Amounts as the provider bills them, and answers as they were sent."""

    def __init__(self, world: World, by_hand: ByHand) -> None:
        self._world = world
        self._by_hand = by_hand

    def posted_truly(self, attempt_id: UUID, row: AttemptRow) -> None:
        """Never less than the provider bills; exactly that where it said so."""
        bill = self._world.bills.get(attempt_id)
        billed = bill.nano_usd if bill else 0
        name = f"attempt {row.attempt}, {self._world.named(row.attempt_id)}"
        is_free = row.status is A.FAILED and (bill is None or bill.is_free)
        is_known = row.usage is not None or row.posted_nano_usd == 0 or is_free
        is_known = is_known and row.settled_by_hand_at is None
        expected = billed if is_known else self._by_hand.amount(row)
        posted = f"{name}: {row.status} posts {row.posted_nano_usd} of {expected} nano-USD"
        self._world.invariants.check("posted_is_billed", row.posted_nano_usd == expected, posted)
        if row.finished_at is not None:
            code = json.loads(row.error or "{}").get("code")
            self._world.invariants.check("an_answer_is_kept", code != WORKER_LOST.code, name)

    def answered(self, new: NewSubmission, answer: Submitted) -> None:
        """A handle that was given out answers: with its own org's result, or with why there is none."""
        name = self._world.named(answer.key)
        (view,) = self._world.ledger.read([answer.key], Bodies.REPLY)
        self._world.invariants.check("no_submission_is_lost", view is not None, name)
        assert view is not None
        self._world.invariants.check("no_result_crosses_an_org", view.org_id == new.org_id, name)
        error = error_of(view)
        has_answer = view.state is not S.SUCCEEDED or error is None
        self._world.invariants.check(
            "an_answer_is_kept", has_answer, f"{name} {view.state}: {error}"
        )
        if error is None:
            text = self._world.conversations.origin(result_of(view))
            asked = LLMRequest.model_validate_json(new.request)
            answered = self._world.bills[UUID(text["attempt"])].request
            # A repair has two messages more; see `Repairs.on_request`.
            own = answered.model_copy(update={"messages": answered.messages[: len(asked.messages)]})
            is_same = all(getattr(asked, f) == getattr(own, f) for f in CHANGES_THE_ANSWER)
            self._world.invariants.check(
                "no_result_is_of_another_request", is_same, f"{name}: {answered}"
            )
            self._world.invariants.check(
                "no_result_crosses_an_org", text["org"] == new.org_id, name
            )
            assert view.last is not None
            self._world.invariants.check(
                "the_first_success_ends_it", text["attempt"] == str(view.last.attempt_id), name
            )
