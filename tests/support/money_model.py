"""
A ledger that everybody touches, and an auditor: what the money properties run.

Clients, workers that vanish and come back, brokers that repeat messages, operators and time act one step at a time;
`audit` compares figures and rows after every step, and `close` moves on whatever is due until nothing is held any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.memory.rows import AttemptRow
from callgate.domain.budgets import Window, scopes_of
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.ledger import (
    Due,
    DueKind,
    NewSubmission,
    Reserve,
    Reserved,
    Settle,
    Settled,
    SubmitOutcome,
)
from callgate.domain.reports import By, EndReason
from callgate.domain.requests import OnBudget
from callgate.domain.unknown import HandOutcome, SettleByHand
from callgate.services.audit import audit
from tests.support.ledger_under_test import (
    REAPER,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)
from tests.support.manual_clock import ManualClock, counted_ids

Row = TypeVar("Row")


def lately(rows: Sequence[Row], back: int) -> list[Row]:
    """One of the newest rows, if there is any."""
    return [rows[-1 - back % len(rows)]] if rows else []


class MoneyModel:
    """Everybody who touches the ledger, and an auditor."""

    def __init__(self, limit: int) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock, counted_ids())
        self.tables = self.ledger.tables
        self.sent: list[NewSubmission] = []
        self.messages: list[CallKey] = []
        self.claims: list[Reserve] = []
        self.refs: list[AttemptRef] = []
        self.settles: list[Settle] = []
        self.highest_limit: dict[int, int] = {}
        self.posts: Counter[AttemptRef] = Counter()
        self.ended: dict[CallKey, CallState] = {}
        self.lowest_by_hand: dict[UUID, int] = {}
        for org_id in ("acme", "zeta"):
            self.ledger.set_budget(org_id, "org", Window.DAY, limit)

    # Clients.

    def submit(self, content: str, org_id: str, **changes: Any) -> None:
        self._submit(a_submission(content, org_id=org_id, **changes))

    def submit_again(self, back: int) -> None:
        for new in lately(self.sent, back):
            self._submit(new)

    def _submit(self, new: NewSubmission) -> None:
        self.sent.append(new)
        (answer,) = self.ledger.submit([new])
        assert answer.key.call_id == new.call_id
        assert answer.state is self.tables.calls[answer.key].state
        if answer.outcome is SubmitOutcome.CREATED:
            self.messages.append(answer.key)

    # Workers, and brokers that repeat what they deliver.

    def reserve(self, batch: list[tuple[int, int]], on_budget: OnBudget) -> None:
        """Claim what is queued, or by a message that comes too late."""
        claims = [
            a_reserve(key, hold, on_budget=on_budget)
            for back, hold in batch
            for key in lately(self._queued() or self.messages, back)
        ]
        self.claims += claims
        self._reserve(claims)

    def _queued(self) -> list[CallKey]:
        states = ((key, call.state) for key, call in self.tables.calls.items())
        return [key for key, state in states if state is CallState.QUEUED]

    def reserve_again(self, back: int) -> None:
        """The very same claim, because its answer was lost."""
        self._reserve(lately(self.claims, back))

    def _reserve(self, batch: list[Reserve]) -> None:
        for outcome in self.ledger.reserve(batch):
            if isinstance(outcome, Reserved) and outcome.ref not in self.refs:
                self._assert_admitted(outcome.ref)
                self.refs.append(outcome.ref)

    def _assert_admitted(self, ref: AttemptRef) -> None:
        """Whatever was posted too high before: at the moment of admission there was room in every scope."""
        call = self.tables.calls[ref.key]
        held_in = {self.tables.budgets[i] for i in self.tables.attempts[ref.attempt_id].budget_ids}
        scopes = scopes_of(call.call_type)
        assert held_in == {b for b in self.ledger.budgets(call.org_id) if b.scope in scopes}
        for budget in held_in:
            assert budget.spent_nano_usd + budget.reserved_nano_usd <= budget.limit_nano_usd
            assert budget.starts_at <= self.clock() < budget.ends_at

    def record(self, back: int, has_reply: bool) -> None:
        error = None if has_reply else '{"code": "rate_limited"}'
        reply = b"{}" if has_reply else None
        refs = self._unanswered() or self.refs
        answers = [an_answer(ref, reply=reply, error=error) for ref in lately(refs, back)]
        self.ledger.record(answers)

    def _unanswered(self) -> list[AttemptRef]:
        rows = self.tables.attempts
        return [ref for ref in self.refs if rows[ref.attempt_id].finished_at is None]

    def settle(self, back: int, cost: int, is_success: bool, next_state: Any) -> None:
        """As the log task or the due query would: by the status that was read."""
        for ref in lately(self._unsettled() or self.refs, back):
            attempt = self.tables.attempts[ref.attempt_id]
            if attempt.status is AttemptStatus.DISPATCHED:
                settle = a_loss(ref, attempt.hold_nano_usd, next_state=next_state)
            elif is_success:
                settle = a_success(ref, cost, expected_status=attempt.status)
            else:
                settle = a_failure(
                    ref, next_state, posted_nano_usd=cost, expected_status=attempt.status
                )
            self._settle([settle])

    def _unsettled(self) -> list[AttemptRef]:
        rows = ((ref, self.tables.attempts[ref.attempt_id]) for ref in self.refs)
        return [ref for ref, row in rows if not row.status.is_posted or row.late_due_at]

    def settle_again(self, batch: list[int], seen: AttemptStatus | None) -> None:
        """Repeated, late, or decided by what is long over."""
        settles = [s for back in batch for s in lately(self.settles, back)]
        self._settle([replace(s, expected_status=seen or s.expected_status) for s in settles])

    def _settle(self, batch: list[Settle]) -> None:
        self.settles += batch
        for settle in batch:
            before = self.tables.attempts[settle.ref.attempt_id].status
            (outcome,) = self.ledger.settle([settle])
            assert isinstance(outcome, Settled)
            self.posts[outcome.ref] += outcome.is_applied
            assert not outcome.is_applied or before is settle.expected_status

    # The due query and the sweep.

    def take_due(self, limit: int, expire: bool, vanishes: bool) -> None:
        """Take what is due, and move it on or vanish with it."""
        self.clock.advance(15)
        items = self._due(limit) if expire else self.ledger.take_due(limit=limit).items
        assert len(items) <= limit
        assert expire or all(due.kind is not DueKind.EXPIRED for due in items)
        for due in items:
            if due.kind is DueKind.PUBLISH or not vanishes:
                self._move_on(due)
        if not vanishes:
            self.tell()

    def tell(self) -> None:
        """What the delivery service does, where the broker takes everything."""
        self.ledger.keep_link_outcomes(
            [LinkOutcome(link.submission_id) for link in self.ledger.links(limit=1_000)]
        )

    def _due(self, limit: int) -> tuple[Due, ...]:
        """As a process whose lease is in order."""
        self.ledger.leases.renew(REAPER.worker_id, 60)
        return self.ledger.take_due(limit=limit, reaper=REAPER).items

    def _move_on(self, due: Due) -> None:
        """What the due service does with one item."""
        if due.kind is DueKind.PUBLISH:
            self.messages.append(due.key)
        if due.attempt_id is None:
            return
        ref = AttemptRef(due.key, due.attempt_id)
        attempt = self.tables.attempts[due.attempt_id]
        if due.kind is DueKind.EXPIRED:
            self._settle([a_loss(ref, attempt.hold_nano_usd)])
        elif attempt.reply is not None:
            self._settle(
                [a_success(ref, attempt.hold_nano_usd // 2, expected_status=attempt.status)]
            )
        else:
            self._settle([a_failure(ref, CallState.WAITING, expected_status=attempt.status)])

    def sweep(self) -> None:
        batch = self.ledger.take_lost_messages(limit=100, queued_before=self.clock())
        assert all(due.kind is DueKind.PUBLISH for due in batch.items)
        self.messages += [due.key for due in batch.items]

    # Operators, and time.

    def end(self, back: int) -> None:
        for key in lately(self.messages, back):
            before = self.tables.calls[key].state
            is_dead = before is CallState.DEAD
            code = EndReason.DISCARDED if is_dead else EndReason.CANCELLED
            ended = self.ledger.end([key], code=code, message="by a test")
            is_endable = before in (CallState.QUEUED, CallState.WAITING, CallState.DEAD)
            assert ended == ([key] if is_endable else [])
            if ended:
                self.ended[key] = CallState.REJECTED

    def set_budget(self, org_id: str, scope: str, window: Window, limit: int) -> None:
        self.ledger.set_budget(org_id, scope, window, limit)

    def settle_by_hand(self, back: int, billed: int, may_exceed_hold: bool) -> None:
        """By what is posted now, as somebody who looked just before."""
        rows = self.tables.attempts
        posted = [ref for ref in self.refs if rows[ref.attempt_id].status.is_posted]
        for ref in lately(posted, back):
            row = rows[ref.attempt_id]
            status, before = row.status, row.posted_nano_usd or 0
            settle = SettleByHand(ref.attempt_id, before, billed, may_exceed_hold)
            (answer,) = self.ledger.settle_by_hand([settle], by=By("ann", "invoice 7"))
            assert (row.status, row.posted_nano_usd) == (status, answer.posted_nano_usd)
            assert (row.posted_nano_usd == billed) or not answer.outcome.is_done
            if answer.outcome is HandOutcome.SETTLED:
                self.lowest_by_hand[ref.attempt_id] = min(
                    billed, self.lowest_by_hand.get(ref.attempt_id, billed)
                )

    def settle_by_stale_hand(self, back: int, seen: int) -> None:
        """By what was posted long ago: whatever it is now stays, unless it is that."""
        for ref in lately(self.refs, back):
            row = self.tables.attempts[ref.attempt_id]
            before = row.posted_nano_usd
            self.ledger.settle_by_hand(
                [SettleByHand(ref.attempt_id, seen, 7)], by=By("bob", "an old list")
            )
            assert row.posted_nano_usd in ((before,) if before != seen else (before, 7))
            if row.posted_nano_usd == 7:
                self.lowest_by_hand[ref.attempt_id] = min(
                    7, self.lowest_by_hand.get(ref.attempt_id, 7)
                )

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # The auditor.

    def audit(self) -> None:
        """Look at everything."""
        self.the_limit_holds()
        self.figures_equal_rows()
        self.attempts_are_unique_and_one_at_a_time()
        self.posted_and_status_agree()
        self.every_call_is_due_or_done()
        self.an_end_is_an_end()

    def the_limit_holds(self) -> None:
        """
        spent + reserved <= limit, unless the limit was lowered or a provider charged more than was held.

        Or than an operator had said: what that freed may be spent when the truth comes.
        """
        for budget in self.tables.budgets.values():
            highest = max(self.highest_limit.get(budget.budget_id, 0), budget.limit_nano_usd)
            self.highest_limit[budget.budget_id] = highest
            overrun = sum(
                max(0, (attempt.posted_nano_usd or 0) - self._held(attempt))
                for attempt in self.tables.attempts.values()
                if budget.budget_id in attempt.budget_ids
            )
            assert budget.spent_nano_usd + budget.reserved_nano_usd <= highest + overrun
            assert min(budget.spent_nano_usd, budget.reserved_nano_usd) >= 0

    def _held(self, attempt: AttemptRow) -> int:
        """What was kept free for it, at the least."""
        return min(attempt.hold_nano_usd, self.lowest_by_hand.get(attempt.attempt_id, 1 << 62))

    def figures_equal_rows(self) -> None:
        """reserved = Σ hold of unposted rows and spent = Σ posted, over exactly the budgets of each hold."""
        for budget in self.tables.budgets.values():
            rows = [a for a in self.tables.attempts.values() if budget.budget_id in a.budget_ids]
            unposted = [a.hold_nano_usd for a in rows if a.posted_nano_usd is None]
            posted = [a.posted_nano_usd for a in rows if a.posted_nano_usd is not None]
            assert budget.reserved_nano_usd == sum(unposted)
            assert budget.spent_nano_usd == sum(posted)
        snapshot = self.ledger.snapshot()
        assert [budget.drift_nano_usd for budget in snapshot.budgets] == [0] * len(
            self.tables.budgets
        )
        assert audit(self.ledger, everything=True).is_clean

    def attempts_are_unique_and_one_at_a_time(self) -> None:
        """Numbered 1, 2, 3 within a call; at most one of them can be at a provider."""
        for key, call in self.tables.calls.items():
            attempts = self.tables.attempts_of[key]
            assert [a.attempt for a in attempts] == list(range(1, call.attempt + 1))
            assert len({a.attempt_id for a in attempts}) == len(attempts)
            unposted = [a for a in attempts if not a.status.is_posted]
            assert len(unposted) <= 1
            if call.state is CallState.RUNNING:
                assert [a.attempt_id for a in unposted] == [call.attempt_id]

    def posted_and_status_agree(self) -> None:
        """posted_nano_usd IS NULL <=> status IN (dispatched, answered); posted once, and once more when late."""
        for attempt in self.tables.attempts.values():
            is_open = attempt.status in (AttemptStatus.DISPATCHED, AttemptStatus.ANSWERED)
            assert (attempt.posted_nano_usd is None) == is_open
            ref = AttemptRef(attempt.key, attempt.attempt_id)
            assert self.posts[ref] <= 2
            assert (self.posts[ref] == 0) == is_open

    def every_call_is_due_or_done(self) -> None:
        """An open call always has a `due_at`, an ended one while money of it is held; who is to be told is noted."""
        for call in self.tables.calls.values():
            left = self.tables.unposted(call.key)
            assert (call.due_at is not None) == (call.state.is_open or bool(left))
            is_to_tell = not call.state.is_open and bool(self.tables.deliveries(call))
            assert (call.key in self.tables.undelivered) == is_to_tell

    def an_end_is_an_end(self) -> None:
        """No ended call moves again, except that an operator discards a dead one."""
        for key, call in self.tables.calls.items():
            if key in self.ended:
                assert call.state is self.ended[key]
            elif not call.state.is_open:
                self.ended[key] = call.state

    def close(self) -> None:
        """Everything that is held comes to a posting and every link is told, though every worker has vanished."""
        for _ in range(len(self.tables.attempts) + len(self.tables.calls) + 2):
            self.clock.advance(3_600)
            for due in self._due(1_000):
                self._move_on(due)
            self.tell()
        assert [
            b.reserved_nano_usd for b in self.tables.budgets.values() if b.reserved_nano_usd
        ] == []
        for key, call in self.tables.calls.items():
            assert call.state is not CallState.RUNNING
            assert call.state.is_open or not self.tables.deliveries(call)
            assert all(a.status.is_posted for a in self.tables.attempts_of[key])
        self.figures_equal_rows()
