"""The tables of the memory ledger and their look-ups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from uuid import UUID

from callgate.adapters.memory.redrive_rows import RedriveRow
from callgate.adapters.memory.rows import (
    AlertDeliveryRow,
    AlertRow,
    AttemptRow,
    BreakerKey,
    CallRow,
    GuardKey,
    LeaseRow,
    LimitKey,
    SubmissionRow,
)
from callgate.domain import trace_context
from callgate.domain.alerts import AlertEvent, Channel
from callgate.domain.bounds import error_code
from callgate.domain.breaker import Breaker
from callgate.domain.budgets import BudgetFigures, Window, period_of
from callgate.domain.calls import (
    AttemptRef,
    AttemptStatus,
    Bodies,
    BrokenAnswer,
    CallKey,
    CallState,
    CallView,
)
from callgate.domain.delivery import Delivery
from callgate.domain.errors import UnknownTimeZone
from callgate.domain.limits import Declaration, Limit
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By, OperatorAction, UnprocessableMessage
from callgate.domain.sums import NOTHING, Delta, Measures, SumKey

NOTHING_DECLARED = Declaration()


@dataclass(slots=True)
class MemoryTables:
    """All rows by primary key, and the few indexes that the ledger looks them up by."""

    calls: dict[CallKey, CallRow] = field(default_factory=dict)
    submissions: dict[UUID, SubmissionRow] = field(default_factory=dict)
    attempts: dict[UUID, AttemptRow] = field(default_factory=dict)
    budgets: dict[int, BudgetFigures] = field(default_factory=dict)
    """Every period of every budget by `budget_id`."""
    unprocessable_messages: list[tuple[datetime, UnprocessableMessage]] = field(
        default_factory=list
    )
    leases: dict[str, LeaseRow] = field(default_factory=dict)
    breakers: dict[BreakerKey, Breaker] = field(default_factory=dict)
    pauses: dict[PauseKey, Pause] = field(default_factory=dict)
    declaration: Declaration = NOTHING_DECLARED
    """The newest declaration of limits."""
    limits: dict[LimitKey, Limit] = field(default_factory=dict)
    unused: dict[int, int] = field(default_factory=dict)
    """By `limit_id`: tokens that answers did not use, for the next claim to add."""
    shares: dict[tuple[GuardKey, str], tuple[float, datetime, float]] = field(default_factory=dict)
    """By key and organisation: how much it took recently from the limits, when, and after how many seconds it fades."""
    undelivered: dict[CallKey, datetime] = field(default_factory=dict)
    """Ended calls with links to deliver, and when to try the next link."""
    actions: list[OperatorAction] = field(default_factory=list)
    redrives: dict[UUID, RedriveRow] = field(default_factory=dict)
    alerts: dict[int, AlertRow] = field(default_factory=dict)
    alert_deliveries: dict[tuple[int, AlertEvent, Channel], AlertDeliveryRow] = field(
        default_factory=dict
    )
    alerts_made: int = 0
    alert_messages_made: int = 0
    deltas: list[Delta] = field(default_factory=list)
    """What the sums lack yet, oldest first."""
    quarter_sums: defaultdict[tuple[datetime, SumKey], Measures] = field(
        default_factory=lambda: defaultdict(lambda: NOTHING)
    )
    day_sums: defaultdict[tuple[date, SumKey], Measures] = field(
        default_factory=lambda: defaultdict(lambda: NOTHING)
    )
    budget_sums: defaultdict[tuple[int, date], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    """By `budget_id` and day: what attempts have posted."""
    seals: dict[datetime, tuple[int, int]] = field(default_factory=dict)
    """Quarter hours that were proven: their attempts, and what those have posted."""
    newest_generation: dict[UUID, int] = field(default_factory=dict)
    locked: set[CallKey] = field(default_factory=set)
    """Locked calls. Only tests add some: each method here is a whole transaction."""
    idempotency_keys: dict[tuple[str, str | None], UUID] = field(default_factory=dict)
    """By organisation and key: the `call_id` the key was used for."""
    newest_budget: dict[tuple[str, str, Window], int] = field(default_factory=dict)
    budgets_made: int = 0
    """An id is never given twice: attempts name budgets that were removed."""
    """By organisation, scope and window: the `budget_id` of the newest period, which is its limit."""
    submissions_of: defaultdict[CallKey, list[SubmissionRow]] = field(
        default_factory=lambda: defaultdict(list)
    )
    attempts_of: defaultdict[CallKey, list[AttemptRow]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def newest(self, call_id: UUID) -> CallRow | None:
        """The newest generation of a call."""
        generation = self.newest_generation.get(call_id)
        return None if generation is None else self.calls[CallKey(call_id, generation)]

    def add_call(self, call: CallRow) -> None:
        """Insert the next generation of a call."""
        self.calls[call.key] = call
        self.newest_generation[call.key.call_id] = call.key.generation

    def add_submission(self, submission: SubmissionRow) -> None:
        """Insert a submission of a call."""
        self.submissions[submission.submission_id] = submission
        self.submissions_of[submission.key].append(submission)

    def add_attempt(self, attempt: AttemptRow) -> None:
        """Insert an attempt of a call."""
        self.attempts[attempt.attempt_id] = attempt
        self.attempts_of[attempt.key].append(attempt)

    def attempt(self, ref: AttemptRef) -> AttemptRow | None:
        """One attempt, if it is one of this very call."""
        attempt = self.attempts.get(ref.attempt_id)
        return attempt if attempt is not None and attempt.key == ref.key else None

    def deliveries(self, call: CallRow) -> tuple[Delivery, ...]:
        """The links of a call that are to be delivered, oldest first."""
        return tuple(
            Delivery(s.submission_id, call.key, call.state, s.link, call.org_id, s.tries)
            for s in self.submissions_of[call.key]
            if s.has_link_to_tell and s.link is not None
        )

    def schedule_delivery(self, call: CallRow, at: datetime) -> bool:
        """Add an ended call to `undelivered`. False if it has no links to deliver."""
        if not self.deliveries(call):
            return False
        self.undelivered[call.key] = min(at, self.undelivered.get(call.key, at))
        return True

    def reschedule_delivery(self, key: CallKey, now: datetime) -> None:
        """Set the time of a call's next link. A call without open links leaves `undelivered`."""
        left = [s for s in self.submissions_of[key] if s.has_link_to_tell]
        if left:
            self.undelivered[key] = max(now, min(s.try_at or now for s in left))
        else:
            self.undelivered.pop(key, None)

    def unposted(self, key: CallKey) -> AttemptRow | None:
        """The attempt of a call that still holds money, if any: never more than one."""
        return next((a for a in self.attempts_of[key] if not a.status.is_posted), None)

    def end(self, call: CallRow, state: CallState, error: str | None, tell_at: datetime) -> bool:
        """End a call. True if it has links; they are delivered from `tell_at` on."""
        call.state = state
        call.error = error
        call.due_at = None
        call.requested_hold_nano_usd = None
        call.wait_reason = None
        call.end_reason = None if error is None else error_code(error)
        call.waits_for = None
        call.is_in_line = False
        return self.schedule_delivery(call, tell_at)

    def rest(self, call: CallRow) -> None:
        """Take the `due_at` from an ended call whose money is posted."""
        if not (call.state.is_open or self.unposted(call.key)):
            call.due_at = None

    def view(self, call: CallRow, attempt_id: UUID | None, bodies: Bodies) -> CallView:
        """A call with one of its attempts (None: the current or winning one), as callers see it."""
        attempts = self.attempts_of[call.key]
        shown_id = attempt_id or call.attempt_id
        has_reply = attempt_id is not None or not call.state.is_open
        with_reply = has_reply and bodies in (Bodies.REPLY, Bodies.BOTH)
        request_bytes = len(call.request or b"")
        last = next((a for a in attempts if a.attempt_id == shown_id), None)
        return CallView(
            key=call.key,
            org_id=call.org_id,
            input_hash=call.input_hash,
            state=call.state,
            due_at=call.due_at,
            attempt=call.attempt,
            call_type=call.call_type,
            provider=call.provider,
            model=call.model,
            input_token_bound=call.input_token_bound,
            request=call.request if request_bytes <= bodies.request_max_bytes else None,
            error=call.error,
            created_at=call.created_at,
            posted_nano_usd=sum(a.posted_nano_usd or 0 for a in attempts),
            worker_losses=sum(a.is_lost for a in attempts),
            unknown_attempts=sum(a.is_left_open for a in attempts),
            paid_failures=sum(a.is_paid_failure for a in attempts),
            uncounted_attempts=sum(a.is_uncounted for a in attempts),
            repairs=sum(a.is_repair_used for a in attempts),
            broken=_broken(attempts),
            wait_reason=call.wait_reason,
            priority=call.priority,
            start_before=call.start_before,
            end_reason=call.end_reason,
            traceparent=trace_context.checked(call.traceparent),
            sweeps=call.sweeps,
            is_purged=call.request is None,
            request_bytes=request_bytes,
            last=last.view(with_reply=with_reply) if last else None,
        )

    def log_action(
        self, at: datetime, by: By, action: str, org_id: str | None, subject: str, **detail: object
    ) -> None:
        """Keep who changed what, and why."""
        self.actions.append(OperatorAction(at, by, action, org_id, subject, detail))

    def current_budgets(
        self, org_id: str, scopes: Iterable[str], now: datetime
    ) -> list[BudgetFigures]:
        """The budgets of some scopes, by id, rolled over into the period that holds `now` where one can be made."""
        names = [(org_id, scope, window) for scope in scopes for window in Window]
        known = [name for name in names if name in self.newest_budget]
        return sorted((self._rolled(name, now) for name in known), key=lambda b: b.budget_id)

    def has_budget(self, org_id: str) -> bool:
        """True if the organisation has a budget in any scope."""
        return any(name[0] == org_id for name in self.newest_budget)

    def set_budget(
        self, org_id: str, scope: str, window: Window, limit: int, timezone: str, now: datetime
    ) -> BudgetFigures:
        """Set the limit of the current period; a new time zone holds from the next period on."""
        name = (org_id, scope, window)
        period = period_of(now, window, timezone)
        if period is None:
            raise UnknownTimeZone(f"{timezone!r} is no time zone, such as Europe/Berlin")
        if name not in self.newest_budget:
            return self.add_budget(*name, limit, timezone, period)
        figures = self._rolled(name, now)
        if figures.ends_at <= now:
            self.budgets[figures.budget_id] = replace(figures, timezone=timezone)
            figures = self._rolled(name, now)
        figures = replace(figures, limit_nano_usd=limit, timezone=timezone)
        self.budgets[figures.budget_id] = figures
        return figures

    def add_budget(
        self,
        org_id: str,
        scope: str,
        window: Window,
        limit: int,
        timezone: str,
        period: tuple[datetime, datetime],
    ) -> BudgetFigures:
        """Insert a period of a budget, unused."""
        starts_at, ends_at = period
        self.budgets_made += 1
        budget_id = self.budgets_made
        added = BudgetFigures(
            budget_id, org_id, scope, window, timezone, starts_at, ends_at, limit, 0, 0
        )
        self.budgets[budget_id] = added
        self.newest_budget[org_id, scope, window] = budget_id
        return added

    def remove_budget(self, org_id: str, scope: str, window: Window) -> None:
        """Remove a budget with all its periods."""
        del self.newest_budget[org_id, scope, window]
        for figures in list(self.budgets.values()):
            if (figures.org_id, figures.scope, figures.window) == (org_id, scope, window):
                del self.budgets[figures.budget_id]

    def change_budget(self, budget_id: int, *, reserved: int = 0, spent: int = 0) -> None:
        """Add to the figures of one budget period, unless it was removed."""
        figures = self.budgets.get(budget_id)
        if figures is None:
            return
        self.budgets[budget_id] = replace(
            figures,
            reserved_nano_usd=figures.reserved_nano_usd + reserved,
            spent_nano_usd=figures.spent_nano_usd + spent,
        )

    def _rolled(self, name: tuple[str, str, Window], now: datetime) -> BudgetFigures:
        figures = self.budgets[self.newest_budget[name]]
        if now < figures.ends_at:
            return figures
        period = period_of(now, figures.window, figures.timezone)
        if period is None:
            return figures
        starts_at, ends_at = period
        # A time zone that was changed meanwhile must not make two periods overlap.
        return self.add_budget(
            *name,
            figures.limit_nano_usd,
            figures.timezone,
            (max(starts_at, figures.ends_at), ends_at),
        )


def _broken(attempts: Iterable[AttemptRow]) -> BrokenAnswer | None:
    """The newest failed attempt with a reply."""
    failed = [a for a in attempts if a.status is AttemptStatus.FAILED and a.reply is not None]
    newest = max(failed, default=None, key=lambda a: a.attempt)
    return BrokenAnswer(newest.attempt_id, len(newest.reply or b"")) if newest else None
