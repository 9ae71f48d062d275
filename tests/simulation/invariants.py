"""
What must be true: after every statement for the rows it touched, at every provider request and link, and at the end.

Nothing here asks callgate whether callgate is right. Expectations come from the provider's own journal, from what was
submitted, and from the rows themselves; each broken one is a `Violation` that names its rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory.rows import CallRow
from callgate.domain.budgets import BudgetFigures, RefusalReason
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey
from callgate.domain.concurrency import CONCURRENCY_CODE
from callgate.domain.delivery import Delivery
from callgate.domain.ledger import (
    NewSubmission,
    RecordAnswer,
    RecordOutcome,
    Refused,
    Reserve,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Settle,
    SubmitOutcome,
    Submitted,
)
from callgate.domain.requests import LLMRequest
from callgate.services.audit import audit
from tests.simulation.breakers import Breakers
from tests.simulation.ends import Ends
from tests.simulation.flow import Flow
from tests.simulation.limits import Limits
from tests.simulation.open_calls import OpenCallsBound
from tests.simulation.pauses import Pauses
from tests.simulation.periods import Periods
from tests.simulation.places import Places
from tests.simulation.progress import Progress
from tests.simulation.provider import worst_nano_usd
from tests.simulation.release_rule import Headroom, scopes_asked
from tests.simulation.repairs import Repairs
from tests.simulation.row_rules import RowRules, S
from tests.simulation.slots import gave_way
from tests.simulation.sums import Sums
from tests.simulation.violation import Violation
from tests.simulation.wishes import Wishes

if TYPE_CHECKING:
    from tests.simulation.world import World


NOT_STORED = (SubmitOutcome.IDEMPOTENCY_MISMATCH, SubmitOutcome.BUSY)


class Invariants:
    """All of them, and the little they have to remember."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._rows = RowRules(world, self.check)
        self._periods = Periods(world, self.check)
        self._admitted: dict[UUID, Reserve] = {}
        self._told: Counter[UUID] = Counter()
        self._key_owners: dict[tuple[str, str], UUID] = {}
        self._accepted: list[tuple[NewSubmission, Submitted]] = []
        self._headroom = Headroom(world)
        self.flow = Flow(world)
        self.breakers = Breakers(world)
        self.places = Places(world)
        self._progress = Progress(world)
        self._limits = Limits(world)
        self._repairs = Repairs(world)
        self._by_hand = self._rows.by_hand
        self._sums = Sums(world)
        self._ends = Ends(world, self._by_hand)
        self.wishes = Wishes(world)
        self.pauses = Pauses(world)
        self._open_calls = OpenCallsBound(world)

    def check(self, rule: str, is_true: object, what: object = "") -> None:
        """
        Assert one rule. A description that costs something is a function, and made only when the rule is broken.

        Raises:
            Violation: It is broken.
        """
        if not is_true:
            raise Violation(rule, str(what() if callable(what) else what))

    # After a statement.

    def after(
        self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], result: Any
    ) -> None:
        """Check what a statement did, then every row it touched."""
        batch = arguments[0] if arguments else ()
        self._periods.check_new()
        if name == "submit" and not self.pauses.submitted(batch, result):
            return
        match name:
            case "submit":
                self._submitted(batch, result)
                self._open_calls.submitted(batch, result)
                self._touched(answer.key for answer in result)
            case "reserve":
                for command, outcome in zip(batch, result, strict=True):
                    self._decided(command, outcome)
                self._touched(command.key for command in batch)
            case "record":
                self._recorded(batch, result)
                self._touched(record.ref.key for record in batch)
            case "settle":
                self._settled(batch)
                self._limits.settled(batch, result)
                self._touched(settle.ref.key for settle in batch)
            case "keep_link_outcomes":
                self._touched(self._tables.submissions[told.submission_id].key for told in batch)
            case "links":
                self._touched(link.key for link in result)
            case "take_due" | "take_lost_messages":
                self._touched(due.key for due in result.items)
            case "end":
                self._touched(batch)
            case "settle_by_hand":
                self._touched(self._by_hand.after(batch, result))
            case "leases.expire":
                for worker_id in result:
                    self._world.scheduler.counts["worker lease expired"] += 1
                    self._process_gone(worker_id)
        self._headroom.after(name, options)
        self.breakers.after(name, arguments, options, result)
        self.flow.after(name, arguments, result)
        for rules in (self.places, self._sums, self.pauses):
            rules.after(name)
        self.wishes.after()

    def _process_gone(self, worker_id: str) -> None:
        """Its attempts end now; `_lost` asks whether it was in trouble."""
        for row in self._tables.attempts.values():
            if row.process == worker_id and not row.status.is_posted:
                self._rows.expires_at[row.attempt_id] = self._world.scheduler.now

    def _submitted(self, batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
        for new, answer in zip(batch, answers, strict=True):
            self._world.scheduler.counts[f"submission {answer.outcome}"] += 1
            if answer.outcome in NOT_STORED:
                continue
            self.wishes.submitted(new, answer)
            if new.idempotency_key is not None:
                name = (new.org_id, new.idempotency_key)
                owner = self._key_owners.setdefault(name, new.call_id)
                said = f"{name} is said to name {self._world.named(answer.key)}"
                self.check("a_key_names_one_request", owner == new.call_id, said)
            row = self._tables.submissions.get(new.submission_id)
            is_kept = row is not None and row.key == answer.key and row.link == new.link
            self.check("no_submission_is_lost", is_kept, self._world.named(answer.key))
            if answer.outcome is SubmitOutcome.CREATED:
                self._created(new, answer.key)
        created = sum(
            row.outcome is SubmitOutcome.CREATED for row in self._tables.submissions.values()
        )
        self.check(
            "a_duplicate_starts_nothing",
            created == len(self._tables.calls),
            f"{created} submissions created {len(self._tables.calls)} calls",
        )

    def _created(self, new: NewSubmission, key: CallKey) -> None:
        """The generation before has ended; a redrive copies its links to this one."""
        key_before = CallKey(key.call_id, key.generation - 1)
        before = self._tables.calls.get(key_before)
        if before is None:
            return
        is_wanted = new.force or before.state is S.REJECTED
        is_wanted_again = not new.inherit_links or before.state is not S.SUCCEEDED
        may_start = is_wanted and is_wanted_again and not before.state.is_open
        name = self._world.named(key)
        self.check("a_duplicate_starts_nothing", may_start, f"{name} follows a {before.state} one")
        if new.inherit_links:
            links = [row.link for row in self._tables.submissions_of[key_before] if row.link]
            heirs = [row.link for row in self._tables.submissions_of[key] if row.outcome is None]
            said = f"{name} inherits {len(heirs)} of {len(links)} links"
            self.check("a_redrive_tells_all", heirs == links, said)

    def _decided(self, command: ReserveCommand, outcome: ReserveOutcome) -> None:
        call = self._tables.calls.get(command.key)
        if call is None:
            return
        if isinstance(command, Reserve) and isinstance(outcome, Reserved):
            self._reserved(call, command, outcome)
        elif isinstance(command, Reserve) and isinstance(outcome, Refused):
            self._refused(call, command, outcome)
        elif isinstance(outcome, Refused):
            self._refused_by_others(call)

    def _refused_by_others(self, call: CallRow) -> None:
        self.breakers.refused_by_others(call)
        self.places.refused_by_others(call)
        self._progress.refused_by_others(call)

    def _reserved(self, call: CallRow, claim: Reserve, outcome: Reserved) -> None:
        row, name = self._tables.attempts[outcome.ref.attempt_id], self._world.named(outcome.ref)
        self._rows.expires_at[row.attempt_id] = self._world.scheduler.now + claim.expires_in_s
        if (known := self._admitted.get(row.attempt_id)) is not None:
            said = f"{name} is claimed by {known.worker_id} and by {claim.worker_id}"
            self.check("a_claim_is_of_one_process", known.worker_id == claim.worker_id, said)
            return
        self._admitted[row.attempt_id] = claim
        claims = [a.worker_id for a in self._tables.attempts_of[call.key]]
        self.check(
            "a_claim_makes_one_attempt", len(set(claims)) == len(claims), f"{name}: {claims}"
        )
        budgets = self._budgets_of(call)
        for budget in budgets:
            self._rows.rows_in[budget.budget_id].append(row)
            self.check("spent_and_held_within_limit", _left(budget) >= 0, self._world.named(budget))
        held_in = {budget.budget_id for budget in budgets}
        where = f"{name} is held in budgets {row.budget_ids}, not in {sorted(held_in)}"
        self.check("held_in_every_scope", held_in == set(row.budget_ids) and held_in, where)
        held = f"{name} holds {row.hold_nano_usd} of {claim.hold_nano_usd} nano-USD"
        self.check("the_worst_case_is_held", row.hold_nano_usd == claim.hold_nano_usd, held)
        worst = worst_nano_usd(LLMRequest.model_validate_json(call.request or b""))
        bound = f"{held}, and may cost {worst}"
        self.check("the_worst_case_is_held", row.hold_nano_usd >= worst, bound)
        before = [a for a in self._tables.attempts_of[call.key] if a is not row]
        self.check(
            "no_attempt_beside_another",
            all(a.status in (AttemptStatus.FAILED, AttemptStatus.UNKNOWN) for a in before),
            f"{self._world.named(call.key)} has attempts {[a.status for a in before]}",
        )
        self._limits.repeated(call, row, before)
        self.wishes.admitted(call)
        self.pauses.admitted(call)
        self.places.admitted(call)
        self.breakers.admitted(call, row, self._world.scheduler.time())
        self.flow.admitted(call, row)
        self._progress.admitted(call, claim.credential)

    def _refused(self, call: CallRow, claim: Reserve, outcome: Refused) -> None:
        if self.wishes.has_ended(call):
            self.breakers.ended_late(call)
            self.places.refused_by_others(call)
            self._progress.refused_by_others(call)
            return
        self.wishes.refused(call)
        if self.pauses.is_refused(call):
            self.pauses.refused(call, claim, self.breakers.refused_elsewhere(call))
            self.places.refused_by_others(call)
            self._progress.refused_by_others(call)
            return
        self.pauses.refused_by_others(call)
        if gave_way(call):
            self._refused_by_others(call)
            return
        self._refused_for_room(call, claim, outcome)

    def _refused_for_room(self, call: CallRow, claim: Reserve, outcome: Refused) -> None:
        self._progress.refused(call, claim.credential, is_for_money=bool(outcome.refusal))
        if CONCURRENCY_CODE in (call.wait_reason, call.end_reason):
            self.places.refused(call, claim, self.breakers.refused_elsewhere(call))
            return
        self.places.refused_by_others(call)
        if outcome.refusal is None:
            self.breakers.refused(call, claim, self._world.scheduler.time())
            return
        reason = outcome.refusal.reason
        self._world.scheduler.counts[f"refused: {reason}"] += 1
        budgets = self._budgets_of(call)
        is_full = any(_left(budget) < claim.hold_nano_usd for budget in budgets)
        is_true = not budgets if reason is RefusalReason.NOT_CONFIGURED else is_full
        said = f"{self._world.named(call.key)}: {reason}, {claim.hold_nano_usd} in {[*map(self._world.named, budgets)]}"
        self.check("refused_only_what_does_not_fit", is_true, said)
        self.breakers.refused_for_money(call, claim, reason)

    def _budgets_of(self, call: CallRow) -> list[BudgetFigures]:
        """Every budget a hold of this call belongs in now."""
        now = self._world.scheduler.time()
        return [
            budget
            for budget in self._tables.budgets.values()
            if budget.org_id == call.org_id
            and budget.scope in scopes_asked(call)
            and budget.starts_at <= now < budget.ends_at
        ]

    def _recorded(self, batch: Sequence[RecordAnswer], result: Sequence[RecordOutcome]) -> None:
        for record, outcome in zip(batch, result, strict=True):
            self._world.scheduler.counts[f"answer {outcome}"] += 1
            row = self._tables.attempts[record.ref.attempt_id]
            name = self._world.named(record.ref)
            self.check("an_answer_is_kept", row.finished_at is not None, name)

    def _settled(self, batch: Sequence[Settle]) -> None:
        """Nothing to check but the rows; what was rare is counted."""
        counts, now = self._world.scheduler.counts, self._world.scheduler.time()
        counts["settled in a batch"] += len(batch) > 1
        for settle in batch:
            row = self._tables.attempts[settle.ref.attempt_id]
            ends = [self._tables.budgets[i].ends_at for i in row.budget_ids]
            counts["settled after the period"] += min(ends) <= now
            counts["settled above its hold"] += (row.posted_nano_usd or 0) > row.hold_nano_usd

    # Touched rows.

    def _touched(self, keys: Iterable[CallKey]) -> None:
        calls = [self._tables.calls[key] for key in dict.fromkeys(keys) if key.generation]
        budget_ids: set[int] = set()
        for call in calls:
            self._rows.call(call)
            for row in self._tables.attempts_of[call.key]:
                self._rows.attempt(row)
                budget_ids.update(row.budget_ids)
        for budget_id in sorted(budget_ids):
            self._rows.budget(self._tables.budgets[budget_id])

    # At a request, a log message, a link.

    def on_request(self, attempt_id: UUID, request: LLMRequest) -> None:
        """The provider receives a request."""
        row = self._tables.attempts.get(attempt_id)
        self.check("no_request_without_a_row", row is not None, self._world.named(attempt_id))
        assert row is not None
        name = f"attempt {row.attempt}, {self._world.named(row.attempt_id)}"
        self.check("one_request_per_attempt", attempt_id not in self._world.bills, name)
        is_held = row.status is AttemptStatus.DISPATCHED
        self.check("only_what_is_held_is_sent", is_held, f"{name} is {row.status}")
        org_id = self._tables.calls[row.key].org_id
        self.check("no_result_crosses_an_org", org_id == request.org_id, name)
        self._repairs.on_request(row, request)

    def on_log_published(self, ref: AttemptRef) -> None:
        """A log message goes out."""
        row = self._tables.attempts[ref.attempt_id]
        is_recorded = row.status is not AttemptStatus.DISPATCHED
        self.check("recorded_before_logged", is_recorded, self._world.named(ref))

    def on_link_published(self, delivery: Delivery) -> None:
        """A submitter is told."""
        seen = self._rows.states[delivery.key]
        name = self._world.named(delivery.submission_id)
        is_true = delivery.state in seen and not delivery.state.is_open
        said = f"{name} is told {delivery.state}; it was {', '.join(seen)}"
        self.check("told_what_is_true", is_true, said)
        self._told[delivery.submission_id] += 1
        self._world.scheduler.counts["link told again"] += self._told[delivery.submission_id] > 1

    def on_accepted(self, batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
        """A pipeline hears that its submissions are accepted, or that there is no room for some."""
        pairs = zip(batch, answers, strict=True)
        self._accepted += [pair for pair in pairs if pair[1].outcome not in NOT_STORED]

    def on_mismatch(self, new: NewSubmission) -> None:
        """A pipeline hears that its key names another request."""
        owner = self._key_owners.get((new.org_id, new.idempotency_key or ""))
        self.check("a_key_names_one_request", owner not in (None, new.call_id), new.idempotency_key)

    # At the end.

    def at_rest(self) -> None:
        """Faults have stopped, time has gone on: everything must have come to its end."""
        self._touched(list(self._tables.calls))
        self._sums.at_rest()
        report = audit(self._world.ledger, everything=True)
        self.check("figures_equal_rows", report.is_clean, report)
        held = [budget for budget in self._tables.budgets.values() if budget.reserved_nano_usd]
        self.check("every_call_ends", not held, "; ".join(map(self._world.named, held)))
        self._repairs.at_rest()
        for attempt_id, row in self._tables.attempts.items():
            self._ends.posted_truly(attempt_id, row)
            self._by_hand.at_rest(row)
        for submission in self._tables.submissions.values():
            if self.is_owed(submission.link):
                times, done_at = self._told[submission.submission_id], submission.delivered_at
                name = self._world.named(submission.submission_id)
                said = f"{name} was told {times} times, and ticked off at {done_at}"
                self.check("everybody_is_told", times and done_at, said)
        for new, answer in self._accepted:
            self._ends.answered(new, answer)

    def is_owed(self, link: str | None) -> bool:
        """True if somebody has to be told by this link in the end."""
        return link is not None


def _left(budget: BudgetFigures) -> int:
    return budget.limit_nano_usd - budget.spent_nano_usd - budget.reserved_nano_usd
