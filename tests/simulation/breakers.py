"""
The rules of breakers, counted a second time: from what the provider did to each attempt, and when the ledger heard it.

Every admission, refusal, release and change of the ledger's breakers must fit the `History` of its provider, model and
credential.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from callgate.adapters.memory.rows import AttemptRow, CallRow, GuardKey
from callgate.domain.budgets import RefusalReason
from callgate.domain.calls import AttemptKind, AttemptStatus, CallKey, CallState, WaitReason
from callgate.domain.ledger import Reserve, Settle, Settled, SettleOutcome
from callgate.domain.requests import OnBudget
from tests.simulation.histories import History, Side
from tests.simulation.provider import Heard
from tests.simulation.row_rules import end_of_refused

PERIODS = timedelta(days=62)
"""An older call does not wait for the next period."""

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True)
class Wait:
    """A call that its provider's breaker keeps waiting, from its refusal to its claim."""

    call: CallRow
    key: GuardKey
    due_at: datetime | None
    """As the statement before left it."""

    def is_asleep(self, now: datetime) -> bool:
        """True if nobody will look at it before it has waited long enough."""
        due_at = self.call.due_at
        return self.call.state is CallState.WAITING and due_at is not None and due_at > now


class Breakers:
    """The history of every breaker, who waits for it, and what a statement did about it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._histories: dict[GuardKey, History] = {}
        self._waits: dict[CallKey, Wait] = {}
        self.was_last_try = False
        """The call that was let through last had waited long enough: it would have been rejected otherwise."""
        self._until: dict[CallKey, datetime] = {}
        """Until when a call may wait; kept until it is tried as no probe, or waits for another reason."""

    def history(self, key: GuardKey) -> History:
        """What one provider, model and credential has done so far."""
        return self._histories[key]

    def sides(self) -> list[tuple[GuardKey, Side]]:
        """What all organisations have met there."""
        return [(key, history.shared) for key, history in self._histories.items()]

    def waiting_for(self, key: GuardKey) -> list[CallRow]:
        """The calls that wait there, or are on their way since."""
        states = (CallState.WAITING, CallState.QUEUED)
        return [w.call for w in self._waits_for(key) if w.call.state in states]

    # At a claim.

    def admitted(self, call: CallRow, row: AttemptRow, now: datetime) -> None:
        """A new attempt was let through."""
        key = call.provider, call.model, row.credential
        history, name = self._history(key, now), self._world.named(row.attempt_id)
        check = self._world.invariants.check
        is_probe, is_proven = history.is_left_alone(call.org_id), history.is_proven(now)
        for side in (history.shared, history.own_of(call.org_id)):
            if side.is_open:
                check("an_open_breaker_lets_one_probe_through", not side.on_trial, name)
                said = f"{name}, due at {self._world.names.seconds(side.probe_at)}"
                check("probes_come_ever_more_rarely", side.may_probe(now), said)
        if history.shared.is_open:
            is_in_turn = not self._is_out_of_turn(history, key, call, now)
            check("organisations_probe_in_turn", is_in_turn, f"{name} of {call.org_id}")
        elif not is_proven:
            said = (
                f"{name} beside {history.on_trial(now)}, after failures of {history.shared.failed}"
            )
            headroom = history.headroom(call.org_id, now)
            check("an_unproven_breaker_lets_three_through", headroom > 0, said)
        self._world.scheduler.counts["probe"] += is_probe
        check("a_probe_is_called_one", is_probe == (row.kind is AttemptKind.PROBE), name)
        history.tried(row, call.org_id, now)
        if is_probe:
            self._may_wait_until(call, now)
        self.was_last_try = call.key in self._until and self._until[call.key] <= now
        self._waits.pop(call.key, None)

    def refused(self, call: CallRow, claim: Reserve, now: datetime) -> None:
        """A call was refused because of its provider: it waits for that, within bounds, or has waited long enough."""
        key = call.provider, call.model, claim.credential
        history, name = self._history(key, now), self._world.named(call.key)
        check, counts = self._world.invariants.check, self._world.scheduler.counts
        may_try = history.headroom(call.org_id, now) > 0 and not (
            history.shared.is_open and self._is_out_of_turn(history, key, call, now)
        )
        counts["refused: provider"] += 1
        until = self._may_wait_until(call, now)
        flow = self._world.invariants.flow
        is_flow = may_try and flow.has_limits(key)
        if is_flow and until > now:
            flow.refused(call, key, now)
        if not is_flow:
            self._is_due_to_several(history, call.org_id, now, name)
            check("who_may_be_tried_is_not_refused", not may_try or until <= now, name)
        self._holds_nothing(call)
        seconds = self._world.names.seconds
        if call.state is CallState.WAITING:
            is_bounded = until > now and call.due_at is not None and call.due_at <= until
            said = f"{name} waits until {seconds(call.due_at)}, and may until {seconds(until)}"
            check("nobody_waits_too_long_for_a_provider", is_bounded, said)
            reason = f"{name} waits, reason {call.wait_reason}"
            is_limited = is_flow or (history.shared.is_open and history.shared.is_limited)
            expected = WaitReason.RATE_LIMITED if is_limited else WaitReason.PROVIDER
            check("who_waits_says_why", call.wait_reason is expected, reason)
            self._waits[call.key] = Wait(call, key, call.due_at)
            flow.waits.begin(call, key, now)
        else:
            said = f"{name} is {call.state}, and may wait until {seconds(until)}"
            is_over = until <= now or (is_flow and flow.never_fits(call))
            is_over = is_over and call.state is end_of_refused(call, claim)
            check("nobody_is_rejected_before_its_wait_is_over", is_over, said)
            counts["rejected: provider"] += 1
            self._waits.pop(call.key, None)

    def knows(self, key: GuardKey) -> bool:
        """True if a call has asked for this key."""
        return key in self._histories

    def has_waited(self, call: CallRow) -> bool:
        """True if a call waits for its provider, or was released and is not claimed yet."""
        return call.key in self._waits

    def ended_late(self, call: CallRow) -> None:
        """A call has ended at its deadline: the turn of its organisation does not count."""
        self._waits.pop(call.key, None)

    def refused_elsewhere(self, call: CallRow) -> datetime:
        """A call waits for a place, held money or an operator. Return until when it may wait for all that together."""
        until = self._may_wait_until(call, self._world.scheduler.time())
        self._leaves(call)
        return until

    def refused_for_money(self, call: CallRow, claim: Reserve, reason: RefusalReason) -> None:
        """A call does not fit into a budget: it waits where that can help, within bounds, or is rejected."""
        now, check = self._world.scheduler.time(), self._world.invariants.check
        name = self._world.named(call.key)
        if reason is RefusalReason.HELD:
            until = self.refused_elsewhere(call)
            can_wait = until > now
            is_bounded = call.due_at is None or call.due_at <= until
            check("nobody_waits_too_long_for_held_money", is_bounded, name)
        else:
            is_young = now - call.created_at < PERIODS
            is_patient = claim.on_budget is OnBudget.WAIT and is_young
            can_wait = reason is RefusalReason.EXHAUSTED and is_patient
            self.refused_by_others(call, is_new_wait=can_wait)
        is_repair = end_of_refused(call, claim) is CallState.DEAD and not can_wait
        if is_repair:
            self._world.scheduler.counts["refused: a repair"] += 1
        ended = CallState.DEAD if is_repair else CallState.REJECTED
        state = CallState.WAITING if can_wait else ended
        rule = "a_refused_repair_is_dead" if is_repair else "who_can_wait_waits"
        check(rule, call.state is state, f"{name} is {call.state}: {reason}")

    def refused_by_others(self, call: CallRow, *, is_new_wait: bool = False) -> None:
        """A call was refused, not for its provider. After a wait for the next period the others begin again."""
        if is_new_wait:
            self._until.pop(call.key, None)
        self._leaves(call)

    def _leaves(self, call: CallRow) -> None:
        released, now = self._waits.pop(call.key, None), self._world.scheduler.time()
        if released is not None:
            # It was to be tried, and is not: others have their turn.
            history = self._histories[released.key]
            if history.shared.is_open or not history.is_proven(now):
                history.turn = call.org_id

    # After a statement.

    def after(
        self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], result: Any
    ) -> None:
        """Hear what ended or was changed by hand, then compare."""
        now = self._world.scheduler.time()
        if name not in ("settle", "set_breaker", "take_due", "take_lost_messages", "end"):
            return
        if name == "settle":
            self._settled(arguments[0], result, now)
        if name == "set_breaker":
            *names, org_id = arguments
            self._set_by_hand((names[0], names[1], names[2]), org_id, options["is_open"], now)
        self._released(now)
        if name not in ("end", "take_lost_messages"):
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
            is_lost = settle.expected_status is AttemptStatus.DISPATCHED
            heard = (
                Heard.NOTHING if is_lost else self._world.heard.get(row.attempt_id, Heard.NOTHING)
            )
            key = call.provider, call.model, row.credential
            history = self._histories[key]
            sides = {"": history.shared, "own ": history.own_of(call.org_id)}
            were_open = {name: side.is_open for name, side in sides.items()}
            blocked_for_s = self._world.retry_after_s.get(row.attempt_id, 0.0)
            rule = history.hear(row, call.org_id, heard, now, blocked_for_s=blocked_for_s)
            self._goes_on(settle, row, call, heard, now)
            for name, side in sides.items():
                if side.is_open != were_open[name]:
                    change = "opened" if side.is_open else "closed"
                    self._world.scheduler.counts[f"{name}breaker {change}"] += 1
            self._compare(key, call.org_id, rule, is_last=settle is batch[-1])

    def _goes_on(
        self, settle: Settle, row: AttemptRow, call: CallRow, heard: Heard, now: datetime
    ) -> None:
        """A call that was refused for the rate waits for its key; its wait has one end, however often that happens."""
        if settle.expected_status is AttemptStatus.UNKNOWN or call.attempt_id != row.attempt_id:
            return
        if heard is Heard.LIMITED and call.state.is_open:
            name, check = self._world.named(call.key), self._world.invariants.check
            until = self._may_wait_until(call, now)
            check("who_waits_says_why", call.wait_reason is WaitReason.RATE_LIMITED, name)
            key = call.provider, call.model, row.credential
            until = self._world.invariants.wishes.bounded(call, until)
            self._waits[call.key] = Wait(call, key, max(until, now))
            self._world.invariants.flow.waits.begin(call, key, now)
        elif row.kind is not AttemptKind.PROBE:
            self._until.pop(call.key, None)

    def _may_wait_until(self, call: CallRow, now: datetime) -> datetime:
        policy = self._world.catalogue.policy(call.call_type)
        return self._until.setdefault(call.key, now + timedelta(seconds=policy.wait_max_s))

    def _set_by_hand(self, key: GuardKey, org_id: str, is_open: bool, now: datetime) -> None:
        history = self._history(key, now)
        changed = [history.own_of(org_id) if org_id else history.shared]
        if not org_id and not is_open:
            changed += history.own.values()
            history.good_at = now
            history.blamed.clear()
        for side in changed:
            side.change(now, is_open=is_open)
        if is_open or not org_id:
            self._compare(key, org_id, "operators_open_and_close")

    def _compare(self, key: GuardKey, org_id: str, rule: str, *, is_last: bool = True) -> None:
        """The ledger's breakers are what their history says; of a batch only the end can be seen."""
        history, check = self._histories[key], self._world.invariants.check
        for owner, side in {
            "": history.shared,
            org_id: history.own_of(org_id or "nobody"),
        }.items():
            side = history.shared if not owner else side
            breaker = self._tables.breakers.get((*key, owner))
            is_open = breaker is not None and breaker.is_open
            if is_last:
                said = f"{'/'.join(key)} of {owner or 'shared'} is open: {is_open}, {side.failed} failed"
                if not owner and is_open and not side.is_by_hand and not side.is_limited:
                    rule_of_all = "one_organisation_alone_keeps_no_other_waiting"
                    check(rule_of_all, len(history.blamed) != 1, said)
                check(rule, is_open == side.is_open, said)
            for trial in breaker.trials if breaker else ():
                is_under_way = not self._tables.attempts[trial.attempt_id].status.is_posted
                named = self._world.named(trial.attempt_id)
                check("a_trial_ends_with_its_attempt", is_under_way, named)

    def _released(self, now: datetime) -> None:
        """Calls that slept are made due by the statement: no more than may be tried."""
        released: dict[GuardKey, list[CallRow]] = defaultdict(list)
        # One that is due and still waits does not count: the very next due query takes it, and reserve decides.
        queued: dict[GuardKey, list[CallRow]] = defaultdict(list)
        for wait in list(self._waits.values()):
            if wait.call.state not in (CallState.WAITING, CallState.QUEUED):
                del self._waits[wait.call.key]
                continue
            slept = wait.due_at is not None and wait.due_at > now
            wait.due_at = wait.call.due_at
            if slept and not wait.is_asleep(now):
                released[wait.key].append(wait.call)
            elif wait.call.state is CallState.QUEUED:
                queued[wait.key].append(wait.call)
        for key, calls in released.items():
            self._world.scheduler.counts["released"] += len(calls)
            self._are_few(key, calls, queued[key], now)
            if not self._world.invariants.flow.has_limits(key):
                self._are_in_turn(key, calls, now)

    def _are_few(
        self, key: GuardKey, calls: list[CallRow], queued: list[CallRow], now: datetime
    ) -> None:
        """No more are released than may be tried, of all and of each organisation."""
        rule, history = "only_as_many_are_released_as_may_be_tried", self._histories[key]
        for org_id in ("", *{call.org_id for call in calls}):
            mine = [c for c in calls if org_id in ("", c.org_id)]
            before = sum(org_id in ("", c.org_id) for c in queued)
            headroom = max(history.headroom(org_id, now) - before, 0)
            named = ", ".join(self._world.named(call.key) for call in mine)
            said = f"{named}; the headroom is {headroom} for {org_id or 'all'}"
            self._world.invariants.check(rule, len(mine) <= headroom, said)

    def _are_in_turn(self, key: GuardKey, calls: list[CallRow], now: datetime) -> None:
        """Nobody has a second call released, or is first twice, while another organisation has none."""
        history, number = self._histories[key], Counter(call.org_id for call in calls)
        waits = self._unpaused(key)
        on_their_way = {wait.call.org_id for wait in waits if not wait.is_asleep(now)}
        left = {
            wait.call.org_id for wait in waits if history.headroom(wait.call.org_id, now) > 0
        } - on_their_way
        greedy = [org for org, n in number.items() if n > 1 or org == history.turn]
        said = f"{greedy} of {dict(number)}, and {sorted(left)} have none"
        rule = "organisations_are_released_in_turn"
        self._world.invariants.check(rule, not (left and greedy), said)

    def _nobody_is_left(self, now: datetime) -> None:
        """Where a provider has headroom, calls that wait for it are on their way."""
        for key, history in self._histories.items():
            headroom = history.headroom("", now)
            if headroom <= 0 or self._world.invariants.flow.has_limits(key):
                continue
            waits = self._waits_for(key)
            on_their_way = Counter(w.call.org_id for w in waits if not w.is_asleep(now))
            asleep = [
                w.call for w in self._unpaused(key) if w.is_asleep(now)
                and history.headroom(w.call.org_id, now) > on_their_way[w.call.org_id]
            ]  # fmt: skip
            if asleep and on_their_way.total() < headroom:
                named = ", ".join(self._world.named(call.key) for call in asleep)
                said = f"{named}; the headroom is {headroom}"
                self._world.invariants.check("who_may_be_tried_is_released", False, said)

    # Inside.

    def _waits_for(self, key: GuardKey) -> list[Wait]:
        return [wait for wait in self._waits.values() if wait.key == key]

    def _unpaused(self, key: GuardKey) -> list[Wait]:
        is_paused = self._world.invariants.pauses.covers
        return [wait for wait in self._waits_for(key) if not is_paused(wait.call)]

    def _history(self, key: GuardKey, now: datetime) -> History:
        return self._histories.setdefault(key, History(Side(now)))

    def _is_due_to_several(self, history: History, org_id: str, now: datetime, name: str) -> None:
        """Who waits without a failure or a trial of its own waits because of two others, or of an operator."""
        doubtful = {*history.blamed, *history.on_trial(now)}
        is_by_hand = history.shared.is_by_hand or history.own_of(org_id).is_by_hand
        is_by_hand = is_by_hand or history.shared.is_limited
        is_own_fault = org_id in doubtful or history.own_of(org_id).is_open
        rule = "one_organisation_alone_keeps_no_other_waiting"
        is_true = is_by_hand or is_own_fault or len(doubtful) > 1
        self._world.invariants.check(
            rule, is_true, f"{name} of {org_id} waits because of {doubtful}"
        )

    def _is_out_of_turn(
        self, history: History, key: GuardKey, call: CallRow, now: datetime
    ) -> bool:
        others = {w.call.org_id for w in self._unpaused(key)} - {call.org_id}
        may_try = any(history.headroom(org_id, now) > 0 for org_id in others)
        return may_try and history.turn == call.org_id

    def _holds_nothing(self, call: CallRow) -> None:
        name, check = self._world.named(call.key), self._world.invariants.check
        rows = [a for a in self._tables.attempts_of[call.key] if not a.status.is_posted]
        held = f"{name} waits, and holds {sum(a.hold_nano_usd for a in rows)} nano-USD"
        check("who_waits_holds_nothing", not rows, held)
