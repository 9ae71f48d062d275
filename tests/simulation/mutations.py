"""
Planted defects. Each is a mistake somebody could make; the simulation must catch every one, by the rule it names.

They are patched in from outside, and only while a seed is played: no product code knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.memory import headroom as memory_headroom
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import money as memory_money
from callgate.adapters.memory import tables as memory_tables
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.memory.rows import SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import identity
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import AttemptStatus, Bodies, CallState
from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.delivery import Delivery, Told
from callgate.domain.ledger import Reaper, RecordAnswer, RecordOutcome, SubmitOutcome, Submitted
from callgate.domain.provider import Billing, Failure, Priced
from callgate.domain.reports import EndReason
from callgate.domain.retry import DEADLINE_BEFORE_SEND, Tally
from callgate.services import ai_call_logger
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.delivery import DeliveryService
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from callgate.services.retrying_ledger import RetryingLedger
from callgate.services.review import Bill
from callgate.services.sending import Sender
from tests.simulation.faulty_ledger import FaultyLedger

Patched = AbstractContextManager[object]


@dataclass(frozen=True)
class Mutation:
    """One planted defect."""

    name: str
    rules: tuple[str, ...]
    """What must catch it: the first, or where chance decides one of the others."""
    plant: Callable[[], Patched]
    faults: Mapping[str, float] = field(default_factory=dict)
    """What must go wrong for the defect to matter: more often than by chance."""


MUTATIONS: list[Mutation] = []
RETRY_UNKNOWN = {"on_unknown": "retry"}


def caught_by(*rules: str, **faults: float) -> Callable[[Callable[[], Patched]], object]:
    """Register a defect under the name of its function; underscores in faults are spaces."""

    def register(plant: Callable[[], Patched]) -> object:
        # Of outages only the defects about them are told: lives without are shorter.
        chances = {"provider outage": 0.0}
        chances |= {name.replace("_", " "): chance for name, chance in faults.items()}
        MUTATIONS.append(Mutation(plant.__name__, rules, plant, chances))
        return plant

    return register


# Fencing.


@caught_by(
    "an_answer_is_kept",
    "what_is_settled_stays",
    "posted_is_billed",
    pauses_while_asking=0.5,
    slow_statement=0.5,
)
def settle_what_has_changed_since() -> Patched:
    """`seen` is not compared."""
    return patch.object(memory_money, "_is_settleable", lambda *_: True)


@caught_by("a_claim_is_of_one_process", repeated=0.5)
def a_redelivery_shares_the_attempt() -> Patched:
    """Any claim of a running call is answered with its attempt."""

    def claimed(tables: MemoryTables, call: Any, wanted: Any) -> Any:
        row = tables.attempts.get(call.attempt_id)
        return row if row is not None and row.status is AttemptStatus.DISPATCHED else None

    return patch.object(memory_money, "_claimed_before", claimed)


@caught_by("a_claim_makes_one_attempt", lands_late=0.3, rate_limited=0.5)
def a_statement_that_lands_late_claims_again() -> Patched:
    """Nobody asks whether the claim has made an attempt before."""
    return patch.object(memory_money, "_is_spent", lambda tables, call, wanted: False)


@caught_by("only_what_is_held_is_sent", pauses=0.3)
def send_past_the_deadline() -> Patched:
    """The deadline is not checked before sending."""

    async def send(self: Any, request: Any, ref: Any, permit: Any) -> Any:
        provider = self._providers[request.provider]
        return await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=20.0)

    return patch.object(Sender, "send", send)


@caught_by("only_what_is_held_is_sent", pauses=0.02, answer_lost=0)
def send_under_a_lease_that_ran_out() -> Patched:
    """The deadline alone is thought to be enough, however long it takes until then."""

    async def send(self: Any, request: Any, ref: Any, permit: Any) -> Any:
        await self._clock.sleep(15 * self._clock.jitter())
        left_s = permit.deadline - self._clock.monotonic()
        if left_s <= 0:
            return DEADLINE_BEFORE_SEND
        provider = self._providers[request.provider]
        return await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=left_s)

    return patch.object(Sender, "send", send)


@caught_by("no_lease_ends_early", pauses_while_asking=0.5)
def an_overtaken_attempt_loses_its_lease() -> Patched:
    """A late success makes the call due at once, and the newer attempt with it."""

    def succeed(tables: MemoryTables, call: Any, winner: Any, now: Any) -> None:
        call.attempt_id = winner.attempt_id
        tables.end(call, CallState.SUCCEEDED, None, now)
        if tables.unposted(call.key):
            call.due_at = now

    return patch.object(memory_money, "_succeed", succeed)


# Money.


@caught_by("the_worst_case_is_held", "held_in_every_scope")
def clamp_a_hold_to_what_is_left() -> Patched:
    """A call that does not fit is let in with less."""
    hold = memory_money._hold

    def clamped(tables: Any, call: Any, wanted: Any, budgets: Any, *rest: Any) -> Any:
        left = min((b.left_nano_usd for b in budgets), default=0)
        clamped = replace(wanted, hold_nano_usd=max(0, min(left, wanted.hold_nano_usd)))
        return hold(tables, call, clamped, budgets, *rest)

    return both(
        patch.object(memory_money, "_hold", clamped),
        patch.object(memory_money, "_refusal", lambda *_: None),
    )


@caught_by("the_worst_case_is_held")
def hold_the_likely_case() -> Patched:
    """An answer is rarely as long as it may be, and so an eighth is enough."""
    worst_case = CostCalculator.worst_case

    def likely(self: CostCalculator, *asked: Any) -> Priced:
        priced = worst_case(self, *asked)
        return replace(priced, nano_usd=priced.nano_usd // 8)

    return patch.object(CostCalculator, "worst_case", likely)


@caught_by("the_worst_case_is_held", rate_limited=0.3)
def retry_without_a_new_hold() -> Patched:
    """The first attempt's hold is thought to cover them all."""
    hold = memory_money._hold

    def once(tables: Any, call: Any, wanted: Any, *rest: Any) -> Any:
        again = replace(wanted, hold_nano_usd=0)
        return hold(tables, call, again if call.attempt else wanted, *rest)

    return patch.object(memory_money, "_hold", once)


@caught_by("spent_and_held_within_limit")
def admit_without_what_is_held() -> Patched:
    """Only what is spent counts."""
    admit = memory_money.admit
    return patch.object(
        memory_money,
        "admit",
        lambda budgets, *rest: admit([replace(b, reserved_nano_usd=0) for b in budgets], *rest),
    )


@caught_by("refused_only_what_does_not_fit")
def refuse_an_exact_fit() -> Patched:
    """Less than, instead of at most."""
    left = property(lambda b: b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd - 1)
    return patch.object(BudgetFigures, "left_nano_usd", left)


@caught_by("who_can_wait_waits")
def reject_what_could_wait() -> Patched:
    """A call that is held up by others only is rejected."""

    def refuse(
        tables: MemoryTables, call: Any, wanted: Any, budgets: Any, why: Any, now: Any
    ) -> Any:
        tables.end(call, CallState.REJECTED, why.to_json(), now)

    return patch.object(memory_money, "_refuse", refuse)


@caught_by("held_in_every_scope")
def hold_in_one_scope_only() -> Patched:
    """The first budget is thought to be the only one."""
    budgets = memory_money._budgets
    return patch.object(memory_money, "_budgets", lambda *asked: budgets(*asked)[:1])


@caught_by("held_in_every_scope", "refused_only_what_does_not_fit")
def know_no_scope_but_the_organisation() -> Patched:
    """The limits of call types are forgotten."""
    return patch.object(memory_money, "scopes_of", lambda call_type: ("org",))


@caught_by("a_period_is_a_day_or_a_month")
def begin_a_period_every_six_hours() -> Patched:
    """Each has the limit of a whole day."""
    period_of = memory_tables.period_of

    def short(at: Any, *rest: Any) -> Any:
        starts_at, _ = period_of(at, *rest)
        length = timedelta(hours=6)
        starts_at += (at - starts_at) // length * length
        return starts_at, starts_at + length

    return patch.object(memory_tables, "period_of", short)


@caught_by("the_books_balance")
def claim_without_holding() -> Patched:
    """The claim is made, the figures stay."""
    change = MemoryTables.change_budget

    def keep(self: MemoryTables, budget_id: int, *, reserved: int = 0, spent: int = 0) -> None:
        change(self, budget_id, reserved=min(0, reserved), spent=spent)

    return patch.object(MemoryTables, "change_budget", keep)


@caught_by("the_books_balance")
def settle_into_the_period_of_today() -> Patched:
    """A hold of yesterday is released in today's budget."""
    post = memory_money._post

    def posted(tables: MemoryTables, attempt: Any, wanted: Any, now: Any) -> None:
        held_in = attempt.budget_ids
        budgets = [tables.budgets[i] for i in held_in]
        attempt.budget_ids = tuple(
            tables.newest_budget[b.org_id, b.scope, b.window] for b in budgets
        )
        post(tables, attempt, wanted, now)
        attempt.budget_ids = held_in

    return patch.object(memory_money, "_post", posted)


@caught_by("unknown_posts_the_hold")
def void_an_unknown() -> Patched:
    """What nobody knows is thought to be free."""
    bill_of = ai_call_logger.bill_of

    def voided(costs: Any, view: Any, attempt: Any, reply: Any, failure: Any, *rest: Any) -> Bill:
        is_unknown = failure and failure.billing is Billing.UNKNOWN
        free = Bill(Priced(0, ""))
        return free if is_unknown else bill_of(costs, view, attempt, reply, failure, *rest)

    return patch.object(ai_call_logger, "bill_of", voided)


@caught_by("posted_is_billed", "no_call_is_given_up_too_soon")
def charge_what_is_free() -> Patched:
    """What the provider did not bill is posted at its whole hold."""
    bill_of = ai_call_logger.bill_of

    def dear(costs: Any, view: Any, attempt: Any, reply: Any, failure: Any, *rest: Any) -> Bill:
        is_free = failure and failure.billing is Billing.UNBILLED
        held = Bill(Priced(attempt.hold_nano_usd, ""))
        return held if is_free else bill_of(costs, view, attempt, reply, failure, *rest)

    return patch.object(ai_call_logger, "bill_of", dear)


@caught_by("posted_is_billed", pauses_while_asking=0.4)
def leave_a_late_answer_at_its_hold() -> Patched:
    """The truth comes late, and the whole hold stays posted."""
    bill_of = ai_call_logger.bill_of

    def stubborn(costs: Any, view: Any, attempt: Any, reply: Any, *rest: Any) -> Bill:
        is_late = attempt.status is AttemptStatus.UNKNOWN
        usage = reply.usage if reply else None
        held = Bill(Priced(attempt.hold_nano_usd, ""), usage)
        return held if is_late else bill_of(costs, view, attempt, reply, *rest)

    return patch.object(ai_call_logger, "bill_of", stubborn)


# Headroom.


@caught_by("freed_headroom_wakes_the_oldest")
def wake_nobody() -> Patched:
    """Whoever waits for headroom has a timer."""
    return patch.object(memory_ledger, "wake", lambda *_: False)


@caught_by("freed_headroom_wakes_the_oldest", "only_as_many_are_woken_as_fit")
def wake_the_youngest_first() -> Patched:
    """Last come, first served."""
    wanting = memory_headroom._wanting
    return patch.object(memory_headroom, "_wanting", lambda *asked: wanting(*asked)[::-1])


@caught_by("only_as_many_are_woken_as_fit")
def wake_everybody() -> Patched:
    """One will get it; the others are refused once more."""
    wanting = memory_headroom._wanting
    return patch.object(
        memory_headroom, "_fitting", lambda *asked: [call for call, _ in wanting(*asked)]
    )


# Answers.


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

    async def once(self: Any, record: RecordAnswer) -> RecordOutcome:
        return await self._ledger.record(record)

    return patch.object(RetryingLedger, "record", once)


@caught_by("an_outage_makes_nothing_unknown", outage_begins=0.1)
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
    record = memory_money.record

    def dropped(tables: MemoryTables, answer: Any, now: Any) -> RecordOutcome:
        row = tables.attempt(answer.ref)
        if row is not None and row.status is AttemptStatus.UNKNOWN:
            return RecordOutcome.CLOSED
        return record(tables, answer, now)

    return patch.object(memory_money, "record", dropped)


@caught_by("the_first_success_ends_it", pauses_while_asking=0.4)
def let_only_the_current_attempt_end_a_call() -> Patched:
    """A late success is posted, and the call is made again all the same."""
    move = memory_money._move

    def moved(tables: Any, call: Any, attempt: Any, *rest: Any) -> None:
        is_current = call.attempt_id == attempt.attempt_id and call.state is CallState.RUNNING
        if is_current or not call.state.is_open:
            move(tables, call, attempt, *rest)

    return patch.object(memory_money, "_move", moved)


@caught_by("an_answer_is_kept", pauses_while_asking=0.4)
def forget_which_attempt_won() -> Patched:
    """The call succeeds, and shows the newest attempt, which has no answer."""
    succeed = memory_money._succeed

    def succeeded(tables: MemoryTables, call: Any, *rest: Any) -> None:
        newest = call.attempt_id
        succeed(tables, call, *rest)
        call.attempt_id = newest

    return patch.object(memory_money, "_succeed", succeeded)


# Repeats.


def deciding(change: Callable[[Failure, Tally, CallTypePolicy], tuple[Any, ...]]) -> Patched:
    """Have the decision about a failed attempt see something else."""
    decide = ai_call_logger.decide

    def decided(failure: Failure, tally: Tally, *, policy: CallTypePolicy, **rest: Any) -> Any:
        failure, tally, policy = change(failure, tally, policy)
        return decide(failure, tally, policy=policy, **rest)

    return patch.object(ai_call_logger, "decide", decided)


@caught_by("no_repeat_without_a_reason", rate_limited=0.5)
def try_once_too_often() -> Patched:
    """The first attempt is not counted."""
    return deciding(
        lambda failure, t, policy: (failure, replace(t, attempts=t.attempts - 1), policy)
    )


@caught_by("no_repeat_without_a_reason")
def repeat_what_may_not_be_repeated() -> Patched:
    """A call type whose calls end with an UNKNOWN outcome pays twice."""

    return deciding(
        lambda failure, t, policy: (failure, t, policy.model_copy(update=RETRY_UNKNOWN))
    )


@caught_by("no_repeat_without_a_reason", bad_request=0.2)
def repeat_what_cannot_help() -> Patched:
    """A bad request is sent again."""
    return deciding(lambda failure, t, policy: (replace(failure, retryable=True), t, policy))


# Liveness.


@caught_by("every_call_ends", lost_at_pop=0.3)
def a_sweep_finds_nothing() -> Patched:
    """Lost messages stay lost."""
    return patch.object(RecoveryService, "sweep", lambda self, sent_at: 0)


@caught_by("every_call_ends")
def what_waits_is_never_due() -> Patched:
    """The due query forgets the retries."""
    needs = MemoryLedger._needs

    def forgetful(self: Any, call: Any, expire: bool) -> bool:
        return call.state is not CallState.WAITING and needs(self, call, expire)

    return patch.object(MemoryLedger, "_needs", forgetful)


@caught_by("every_call_ends", pauses_while_asking=0.4, lost_at_pop=0.3)
def late_answers_are_never_due() -> Patched:
    """A late answer whose log message was lost is never settled."""
    return patch.object(MemoryLedger, "_due_late_answers", lambda self, limit, now: ())


@caught_by("whatever_is_left_is_due", pauses_while_asking=0.4)
def forget_an_overtaken_attempt() -> Patched:
    """A call that has ended is thought to hold nothing."""
    succeed = memory_money._succeed

    def forgetful(tables: Any, call: Any, winner: Any, now: Any) -> None:
        succeed(tables, call, winner, now)
        call.due_at = None

    return patch.object(memory_money, "_succeed", forgetful)


@caught_by("poison_is_put_aside", dies_while_asking=0.5)
def try_a_poisonous_call_for_ever() -> Patched:
    """Nobody counts how many workers a call has killed."""
    return deciding(lambda failure, t, policy: (failure, replace(t, worker_losses=0), policy))


# Submitters.


@caught_by("whatever_is_left_is_due")
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
        joined = SubmissionRow(new.submission_id, call.key, SubmitOutcome.JOINED, new.link)
        tables.add_submission(joined)
        return [Submitted(new.submission_id, SubmitOutcome.JOINED, call.key, call.state)]

    return patch.object(FaultyLedger, "submit", unlocked)


@caught_by("a_duplicate_starts_nothing")
def every_submission_starts_a_call() -> Patched:
    """Nothing collapses."""
    return patch.object(memory_ledger, "_outcome", lambda new, newest: SubmitOutcome.CREATED)


@caught_by("no_submission_is_lost")
def drop_the_link_of_a_duplicate() -> Patched:
    """Whoever joins is thought to need no telling."""
    add = MemoryTables.add_submission

    def silent(self: MemoryTables, row: Any) -> None:
        is_joined = row.outcome is SubmitOutcome.JOINED
        add(self, replace(row, link=None) if is_joined else row)

    return patch.object(MemoryTables, "add_submission", silent)


@caught_by("no_result_is_of_another_request")
def hash_without_the_prompt() -> Patched:
    """Whoever asks the same model gets the same answer."""
    return patch.object(identity, "NOT_IN_IDENTITY", identity.NOT_IN_IDENTITY | {"messages"})


@caught_by("a_duplicate_starts_nothing", bad_request=0.4, hangs=0)
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
    alike = {"call_id": lambda org_id, h: call_id("", h)}
    return both(patch.multiple(identity, **alike), patch.multiple(memory_ledger, **alike))


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
            self._ledger.deliver([Told(link.submission_id) for link in links])
        publish(self, links)

    return patch.object(DeliveryService, "_publish", marked)


@caught_by("whatever_is_left_is_due")
def a_replayed_link_is_not_due() -> Patched:
    """A link on a call that has ended waits for somebody to look."""

    def silent(self: Any, new: Any, call: Any, outcome: SubmitOutcome, now: Any) -> None:
        before = dict(self.tables.untold)
        add(self, new, call, outcome, now)
        self.tables.untold = before

    add = MemoryLedger._add_submission
    return patch.object(MemoryLedger, "_add_submission", silent)


@caught_by("a_redrive_tells_all")
def a_redrive_inherits_no_links() -> Patched:
    """Whoever waited for the dead call never hears of the next."""
    return patch.object(MemoryLedger, "_inherit_links", lambda *_: None)


@caught_by("an_end_is_an_end", slow_reply=0.5)
def cancel_a_call_that_runs() -> Patched:
    """Its request is on its way, and paid."""
    return patch.object(EndReason, "ends", property(lambda _: tuple(CallState)))


@contextmanager
def both(*patches: Patched) -> Iterator[None]:
    """Two patches as one."""
    first, second = patches
    with first, second:
        yield
