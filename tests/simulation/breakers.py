"""
The rules of breakers, counted a second time: from what the provider did to each attempt, and when the ledger heard it.

Nothing here asks `callgate.domain.breaker`. A `History` is what one provider, model and credential has done so far;
every admission, refusal, release and change of the ledger's breaker must fit it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory_tables import AttemptRow, BreakerKey, CallRow
from callgate.domain.ledger import (
    AttemptKind,
    AttemptStatus,
    CallKey,
    CallState,
    Reserve,
    Settle,
    Settled,
    SettleOutcome,
    WaitReason,
)
from tests.simulation.provider import Heard

if TYPE_CHECKING:
    from tests.simulation.world import World

FAILURES_MAX = 3
PROVEN_S, TRIAL_S, PROBE_S, PROBE_S_MAX = 60, 10, 10.0, 600.0
RELEASED_MAX = 200


@dataclass(slots=True)
class Wait:
    """A call that its provider's breaker keeps waiting, from its refusal to its claim."""

    call: CallRow
    breaker: BreakerKey
    due_at: datetime | None
    """As the statement before left it."""

    def is_asleep(self, now: datetime) -> bool:
        """True if nobody will look at it before it has waited long enough."""
        due_at = self.call.due_at
        return self.call.state is CallState.WAITING and due_at is not None and due_at > now


@dataclass
class History:
    """What is known of one provider, model and credential."""

    changed_at: datetime
    is_open: bool = False
    failures: int = 0
    good_at: datetime | None = None
    probe_at: datetime | None = None
    probe_s: float = PROBE_S
    probed_org: str = ""
    on_trial: dict[UUID, datetime] = field(default_factory=dict)
    """Attempts that were let through while nobody knew whether it answers, and have not ended: when they were made."""

    def is_proven(self, now: datetime) -> bool:
        """True if it has answered within the last minute."""
        return self.good_at is not None and now - self.good_at < timedelta(seconds=PROVEN_S)

    def room(self, now: datetime) -> int:
        """How many calls may be tried now."""
        if self.is_open:
            return int(not self.on_trial and self.probe_at is not None and self.probe_at <= now)
        if self.is_proven(now):
            return RELEASED_MAX
        young = sum(now - at < timedelta(seconds=TRIAL_S) for at in self.on_trial.values())
        return FAILURES_MAX - self.failures - young

    def change(self, now: datetime, *, is_open: bool, probe_at: datetime | None = None) -> None:
        """Open or close it: everything counts from here."""
        self.is_open, self.changed_at, self.probe_at = is_open, now, probe_at
        self.probe_s = PROBE_S
        self.on_trial.clear()
        if not is_open:
            self.failures, self.good_at = 0, now

    def hear(self, row: AttemptRow, heard: Heard, now: datetime) -> str:
        """An attempt ends; return the rule that says what becomes of the breaker."""
        was_trial = self.on_trial.pop(row.attempt_id, None) is not None
        if row.started_at < self.changed_at or (self.is_open and not was_trial):
            return "old_attempts_change_no_breaker"
        if heard is Heard.ALIVE:
            if self.is_open:
                self.change(now, is_open=False)
            self.failures, self.good_at = 0, now
            return "an_answer_closes_a_breaker"
        has_failed = heard in (Heard.FAILED, Heard.KEY_REFUSED)
        if self.is_open:
            if was_trial:
                self.probe_s = min(self.probe_s * (2 if has_failed else 1), PROBE_S_MAX)
                self.probe_at = now + timedelta(seconds=self.probe_s)
            return "only_an_answer_closes_a_breaker"
        self.failures += has_failed
        if heard is Heard.KEY_REFUSED or self.failures >= FAILURES_MAX:
            self.change(now, is_open=True, probe_at=now + timedelta(seconds=PROBE_S))
        is_key = heard is Heard.KEY_REFUSED
        return "a_refused_key_opens_a_breaker" if is_key else "three_failures_open_a_breaker"


class Breakers:
    """The history of every breaker, who waits for it, and what a statement did about it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._histories: dict[BreakerKey, History] = {}
        self._waits: dict[CallKey, Wait] = {}
        self._until: dict[CallKey, datetime] = {}
        """Until when a call may wait; kept until it is tried as no probe, or waits for another reason."""

    # At a claim.

    def admitted(self, call: CallRow, row: AttemptRow, now: datetime) -> None:
        """A new attempt was let through."""
        key = call.provider, call.model, row.credential
        history, name = self._history(key, now), self._world.named(row.attempt_id)
        check = self._world.invariants.check
        was_open, is_proven = history.is_open, history.is_proven(now)
        if was_open:
            check("an_open_breaker_lets_one_probe_through", not history.on_trial, name)
            is_due = history.probe_at is not None and history.probe_at <= now
            said = f"{name}, due at {self._world.names.seconds(history.probe_at)}"
            check("probes_come_ever_more_rarely", is_due, said)
            is_in_turn = not self._is_out_of_turn(history, key, call, row.attempt - 1)
            check("organisations_probe_in_turn", is_in_turn, f"{name} of {call.org_id}")
            history.probed_org = call.org_id
            self._world.scheduler.counts["probe"] += 1
        elif not is_proven:
            said = f"{name} beside {len(history.on_trial)}, after {history.failures} failures"
            check("an_unproven_breaker_lets_three_through", history.room(now) > 0, said)
        check("a_probe_is_called_one", was_open == (row.kind is AttemptKind.PROBE), name)
        if was_open or not is_proven:
            history.on_trial[row.attempt_id] = now
        if was_open:
            policy = self._world.catalogue.policy(call.call_type)
            self._until.setdefault(call.key, now + timedelta(seconds=policy.wait_max_s))
        else:
            self._until.pop(call.key, None)
        self._waits.pop(call.key, None)

    def refused(self, call: CallRow, wanted: Reserve, now: datetime) -> None:
        """A call was refused because of its provider: it waits for that, within bounds, or has waited long enough."""
        key = call.provider, call.model, wanted.credential
        history, name = self._history(key, now), self._world.named(call.key)
        check, counts = self._world.invariants.check, self._world.scheduler.counts
        may_try = history.room(now) > 0 and not (
            history.is_open and self._is_out_of_turn(history, key, call, call.attempt)
        )
        counts["refused: provider"] += 1
        policy = self._world.catalogue.policy(call.call_type)
        until = self._until.setdefault(call.key, now + timedelta(seconds=policy.wait_max_s))
        check("who_may_be_tried_is_not_refused", not may_try or until <= now, name)
        self._holds_nothing(call)
        seconds = self._world.names.seconds
        if call.state is CallState.WAITING:
            is_bounded = until > now and call.due_at is not None and call.due_at <= until
            said = f"{name} waits until {seconds(call.due_at)}, and may until {seconds(until)}"
            check("nobody_waits_too_long_for_a_provider", is_bounded, said)
            reason = f"{name} waits, reason {call.wait_reason}"
            check("who_waits_says_why", call.wait_reason is WaitReason.PROVIDER, reason)
            self._waits[call.key] = Wait(call, key, call.due_at)
        else:
            said = f"{name} is {call.state}, and may wait until {seconds(until)}"
            is_over = call.state is CallState.REJECTED and until <= now
            check("nobody_is_rejected_before_its_wait_is_over", is_over, said)
            counts["rejected: provider"] += 1
            self._waits.pop(call.key, None)

    def refused_by_others(self, call: CallRow) -> None:
        """A call was refused, and not because of its provider."""
        self._until.pop(call.key, None)
        released = self._waits.pop(call.key, None)
        if released is not None and self._histories[released.breaker].is_open:
            # It was to be the probe, and is none: others have their turn.
            self._histories[released.breaker].probed_org = call.org_id

    # After a statement.

    def after(
        self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], result: Any
    ) -> None:
        """Hear what ended or was changed by hand, then compare."""
        now = self._world.scheduler.time()
        if name not in ("settle", "set_breaker", "due", "end"):
            return
        if name == "settle":
            self._settled(arguments[0], result, now)
        if name == "set_breaker":
            key = arguments[0], arguments[1], arguments[2]
            self._history(key, now).change(now, is_open=options["is_open"])
            self._compare(key, "operators_open_and_close")
        self._released(now)
        if name != "end" and options.get("queued_before") is None:
            self._nobody_is_left(now)

    def _settled(
        self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome], now: datetime
    ) -> None:
        for settle, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Settled) or not outcome.is_applied:
                continue
            row, call = (
                self._tables.attempts[settle.ref.attempt_id],
                self._tables.calls[settle.ref.key],
            )
            is_lost = settle.seen is AttemptStatus.DISPATCHED
            heard = (
                Heard.NOTHING if is_lost else self._world.heard.get(row.attempt_id, Heard.NOTHING)
            )
            key = call.provider, call.model, row.credential
            history = self._histories[key]
            was_open = history.is_open
            rule = history.hear(row, heard, now)
            if history.is_open != was_open:
                change = "opened" if history.is_open else "closed"
                self._world.scheduler.counts[f"breaker {change}"] += 1
            self._compare(key, rule, is_last=settle is batch[-1])

    def _compare(self, key: BreakerKey, rule: str, *, is_last: bool = True) -> None:
        """The ledger's breaker is what its history says; of a batch only the end can be seen."""
        breaker, history = self._tables.breakers[key], self._histories[key]
        check = self._world.invariants.check
        if is_last:
            said = f"{'/'.join(key)} is open: {breaker.is_open}, {history.failures} failures"
            check(rule, breaker.is_open == history.is_open, said)
        for attempt_id, _ in breaker.trials:
            is_under_way = not self._tables.attempts[attempt_id].status.is_posted
            check("a_trial_ends_with_its_attempt", is_under_way, self._world.named(attempt_id))

    def _released(self, now: datetime) -> None:
        """Calls that slept are made due by the statement: no more than may be tried."""
        released: dict[BreakerKey, list[CallRow]] = defaultdict(list)
        # One that is due and still waits does not count: the very next due query takes it, and reserve decides.
        queued: Counter[BreakerKey] = Counter()
        for wait in list(self._waits.values()):
            if wait.call.state not in (CallState.WAITING, CallState.QUEUED):
                del self._waits[wait.call.key]
                continue
            slept = wait.due_at is not None and wait.due_at > now
            wait.due_at = wait.call.due_at
            if slept and not wait.is_asleep(now):
                released[wait.breaker].append(wait.call)
            elif wait.call.state is CallState.QUEUED:
                queued[wait.breaker] += 1
        for key, calls in released.items():
            self._world.scheduler.counts["released"] += len(calls)
            room = max(self._histories[key].room(now) - queued[key], 0)
            if len(calls) > room:
                named = ", ".join(self._world.named(call.key) for call in calls)
                rule = "only_as_many_are_released_as_may_be_tried"
                self._world.invariants.check(rule, False, f"{named}; there is room for {room}")

    def _nobody_is_left(self, now: datetime) -> None:
        """Where a breaker has room, calls that wait for it are on their way."""
        for key, history in self._histories.items():
            if (room := history.room(now)) <= 0:
                continue
            waits = [wait for wait in self._waits.values() if wait.breaker == key]
            asleep = [wait.call for wait in waits if wait.is_asleep(now)]
            if asleep and len(waits) - len(asleep) < room:
                named = ", ".join(self._world.named(call.key) for call in asleep)
                said = f"{named}; there is room for {room}"
                self._world.invariants.check("who_may_be_tried_is_released", False, said)

    # Inside.

    def _history(self, key: BreakerKey, now: datetime) -> History:
        return self._histories.setdefault(key, History(changed_at=now))

    def _is_out_of_turn(
        self, history: History, key: BreakerKey, call: CallRow, attempts: int
    ) -> bool:
        others = [wait.call for wait in self._waits.values() if wait.breaker == key]
        return any(other.attempt < attempts for other in others) or (
            history.probed_org == call.org_id
            and any(o.org_id != call.org_id and o.attempt == attempts for o in others)
        )

    def _holds_nothing(self, call: CallRow) -> None:
        name, check = self._world.named(call.key), self._world.invariants.check
        rows = [a for a in self._tables.attempts_of[call.key] if not a.status.is_posted]
        held = f"{name} waits, and holds {sum(a.hold_nano_usd for a in rows)} nano-USD"
        check("who_waits_holds_nothing", not rows, held)
