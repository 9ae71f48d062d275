"""Somebody holds a call, as a client's login can for as long as it likes: nobody waits, and nothing of it is lost."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from callgate.adapters.postgres.leases import EXPIRED_MAX
from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import Due, DueKind, Locked, Refused, Requeue, Reserved
from callgate.domain.reports import EndReason
from tests.contract.breaker_steps import (
    breaker,
    claim,
    ends,
    opened_for_all,
    published,
    waits,
)
from tests.support.ledger_under_test import (
    LEASE_S,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
)
from tests.support.process_leases import DEAD, LENGTH_S, REAPER, claimed_by, pass_time


def test_a_claim_passes_over_what_somebody_holds(ledger: LedgerUnderTest) -> None:
    """Its neighbours are claimed, nothing is held for it, and it can be claimed as soon as it is free."""
    held, mate = ledger.queued("held"), ledger.queued("mate")
    before = ledger.view(held)

    with ledger.holding(held):
        outcomes = ledger.reserve(a_reserve(held, 10), a_reserve(mate, 10))
        assert outcomes[0] == Locked(held)
        assert isinstance(outcomes[1], Reserved)
        assert (ledger.view(held), ledger.figures()) == (before, (10, 0))

    ledger.claim(held)


def test_the_claim_of_a_running_call_that_is_held_cannot_be_renewed(
    ledger: LedgerUnderTest,
) -> None:
    """A claimant that got no reply must ask again before it may send."""
    reserve = a_reserve(ledger.queued())
    (first,) = ledger.reserve(reserve)

    with ledger.holding(reserve.key):
        assert ledger.reserve(reserve) == [Locked(reserve.key)]

    assert ledger.reserve(reserve) == [first]


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.WAITING])
def test_what_nobody_can_claim_is_no_secret(ledger: LedgerUnderTest, state: CallState) -> None:
    """It need not be tried again."""
    ref = ledger.succeeded() if state is CallState.SUCCEEDED else ledger.waiting(due_in_s=60)

    with ledger.holding(ref.key):
        (outcome,) = ledger.reserve(a_reserve(ref.key))

    assert not isinstance(outcome, Locked)
    assert ledger.state(ref.key) is state


def test_a_settlement_passes_over_what_somebody_holds(ledger: LedgerUnderTest) -> None:
    """Its neighbours are posted; the held one stays answered, at its hold, and is posted once with the truth."""
    held, mate = ledger.answered("held"), ledger.answered("mate")

    with ledger.holding(held.key):
        outcomes = ledger.ledger.settle([a_success(held, 60), a_success(mate, 7)])
        assert outcomes[0] == Locked(held.key)
        assert (ledger.state(mate.key), ledger.figures()) == (CallState.SUCCEEDED, (100, 7))
        view = ledger.view(held)
        assert view.last is not None
        assert (view.state, view.last.status) == (CallState.RUNNING, AttemptStatus.ANSWERED)

    (settled,), (again,) = ledger.settle(a_success(held, 60)), ledger.settle(a_success(held, 60))
    assert (settled.is_applied, again.is_applied, ledger.figures()) == (True, False, (0, 67))


def test_an_answer_is_kept_though_somebody_holds_its_call(ledger: LedgerUnderTest) -> None:
    """It is paid: nothing may stand between it and the ledger."""
    ref = ledger.running()

    with ledger.holding(ref.key):
        ledger.record(an_answer(ref))

    assert ledger.due() == ()
    assert ledger.settle(a_success(ref))[0].is_applied


def test_an_expired_attempt_that_is_locked_waits_for_the_next_reaper(
    ledger: LedgerUnderTest,
) -> None:
    """The due query passes over it, and takes it when it is free."""
    held, mate = ledger.running("held"), ledger.running("mate")
    ledger.age(LEASE_S + 1)

    with ledger.holding(held.key):
        assert ledger.due() == (Due(DueKind.EXPIRED, mate.key, mate.attempt_id),)

    assert ledger.due() == (Due(DueKind.EXPIRED, held.key, held.attempt_id),)


def test_a_sweep_does_not_count_what_somebody_holds(ledger: LedgerUnderTest) -> None:
    """Nobody could claim it: that says nothing about the call."""
    held, lost = ledger.queued("held"), ledger.queued("lost")
    ledger.age(5)

    with ledger.holding(held):
        found = ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now()).items
        assert [due.key for due in found] == [lost]

    assert (ledger.view(held).sweeps, ledger.view(lost).sweeps) == (0, 1)


def test_a_requeued_call_waits_as_locked_and_loses_its_sweeps(ledger: LedgerUnderTest) -> None:
    """A worker received its message, so the sweeps counted nothing that was lost."""
    key = ledger.queued()
    for _ in range(2):
        ledger.age(5)
        ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now())
    assert ledger.view(key).is_quarantined
    requeue = Requeue(key, '{"code": "locked"}')

    with ledger.holding(key):
        assert ledger.reserve(requeue) == [Locked(key)]
        assert ledger.view(key).is_quarantined
    (refused,) = ledger.reserve(requeue)

    assert isinstance(refused, Refused)
    assert ledger.view(key).wait_reason is WaitReason.LOCKED
    assert not ledger.view(ledger.requeued(key)).is_quarantined


def test_a_cancellation_passes_over_what_somebody_holds(ledger: LedgerUnderTest) -> None:
    """An operator's thousand do not wait for one."""
    held, mate = ledger.queued("held"), ledger.queued("mate")

    with ledger.holding(held):
        ended = ledger.operations.end([held, mate], code=EndReason.CANCELLED, message="by a test")
        assert ended == [mate]

    assert ledger.state(held) is CallState.QUEUED


def test_of_a_dead_worker_what_nobody_holds_is_moved_on_at_once(ledger: LedgerUnderTest) -> None:
    """And the rest when it is free; the worker is called lost once."""
    ledger.leases.renew(DEAD, LENGTH_S)
    held, mate = claimed_by(ledger, DEAD, "held"), claimed_by(ledger, DEAD, "mate")
    pass_time(ledger, LENGTH_S, REAPER)

    with ledger.holding(held.key):
        assert ledger.leases.expire(REAPER) == [DEAD]
        assert [due.key for due in ledger.due()] == [mate.key]
        ledger.settle(a_loss(mate))
        pass_time(ledger, LENGTH_S, REAPER)
        assert ledger.leases.expire(REAPER) == []
        assert held.key not in [due.key for due in ledger.due()]
    pass_time(ledger, LENGTH_S / 4, REAPER)

    assert ledger.leases.expire(REAPER) == []
    assert Due(DueKind.EXPIRED, held.key, held.attempt_id) in ledger.due()
    ledger.settle(a_loss(held))
    # And its lease has gone: one that begins now is another.
    assert ledger.leases.renew(DEAD, LENGTH_S) == ledger.leases.renew(DEAD, LENGTH_S)


def test_a_worker_that_comes_back_learns_that_its_lease_was_given_away(
    ledger: LedgerUnderTest,
) -> None:
    """Though one of its calls was held, and so kept: what it claimed before, it sends no more."""
    began_at = ledger.leases.renew(DEAD, LENGTH_S)
    held = claimed_by(ledger, DEAD)
    pass_time(ledger, LENGTH_S, REAPER)

    with ledger.holding(held.key):
        ledger.leases.expire(REAPER)
        again = ledger.leases.renew(DEAD, LENGTH_S)
        assert began_at < again == ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, LENGTH_S / 4, REAPER)

    assert ledger.leases.expire(REAPER) == []
    assert ledger.due() == ()
    ledger.record(an_answer(held))
    assert ledger.settle(a_success(held))[0].is_applied


def test_a_lease_that_was_given_away_expires_nobody(ledger: LedgerUnderTest) -> None:
    """It stays for what is held, and its process may be dead."""
    zombie = "host:3:zombie"
    ledger.leases.renew(zombie, LENGTH_S)
    held = claimed_by(ledger, zombie)
    ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, LENGTH_S, REAPER)

    with ledger.holding(held.key):
        ledger.leases.release(zombie)
        assert ledger.leases.expire(zombie) == []
        ledger.leases.renew(zombie, LENGTH_S)
        assert ledger.leases.expire(zombie) == []
        assert ledger.leases.expire(REAPER) == [DEAD]


def test_leases_whose_calls_are_held_keep_none_from_being_released(
    ledger: LedgerUnderTest,
) -> None:
    """More than one statement takes: a lease that was tried goes to the end of the order."""
    stuck = [f"host:{n}:stuck" for n in range(EXPIRED_MAX + 2)]
    ledger.set_budget(10_000)
    refs = []
    for worker_id in stuck:
        ledger.leases.renew(worker_id, LENGTH_S)
        refs.append(claimed_by(ledger, worker_id, worker_id))
    ledger.age(0.001)
    ledger.leases.renew(DEAD, LENGTH_S)
    lost = claimed_by(ledger, DEAD, "lost")
    pass_time(ledger, LENGTH_S, REAPER)

    with ExitStack() as held:
        for ref in refs:
            held.enter_context(ledger.holding(ref.key))
        for _ in range(4):
            ledger.leases.expire(REAPER)
        assert [due.key for due in ledger.due()] == [lost.key]


# Breakers: one that holds its call must not hold a provider from all others.


def probe(ledger: LedgerUnderTest, org_id: str) -> AttemptRef:
    """Have an organisation's call become the probe of the open breaker."""
    key = waits(ledger, f"probe of {org_id}", org_id=org_id)
    ledger.age(11)
    assert key in published(ledger)
    ref = claim(ledger, key)
    assert isinstance(ref, AttemptRef)
    return ref


def with_another(ledger: LedgerUnderTest) -> str:
    """Another organisation with money."""
    ledger.set_budget(1_000, org_id="other")
    return "other"


def test_a_probe_whose_call_is_held_is_heard(ledger: LedgerUnderTest) -> None:
    """The provider answers: others go on at once, and posting it later changes no more."""
    opened_for_all(ledger)
    ref = probe(ledger, with_another(ledger))
    ledger.record(an_answer(ref))
    success = a_success(ref, 5, health=Health.ALIVE)

    with ledger.holding(ref.key):
        assert ledger.ledger.settle([success]) == [Locked(ref.key)]
        assert not breaker(ledger, "").is_open
        ends(ledger, claim_now(ledger, "of acme"), Health.ALIVE)
    assert ledger.settle(success)[0].is_applied
    assert not breaker(ledger, "").is_open


def test_a_failed_probe_whose_call_is_held_counts_once(ledger: LedgerUnderTest) -> None:
    """The next probe waits twice as long, and no longer when the first is posted."""
    opened_for_all(ledger)
    ref = probe(ledger, with_another(ledger))
    ledger.record(an_answer(ref))
    failure = a_failure(ref, health=Health.FAILED, failure_code="server_error")

    with ledger.holding(ref.key):
        assert ledger.ledger.settle([failure]) == [Locked(ref.key)]
        next_probe = breaker(ledger, "").probe_at
    ledger.settle(failure)

    assert breaker(ledger, "").probe_at == next_probe


def test_nobody_waits_for_the_turn_of_a_call_that_is_held(ledger: LedgerUnderTest) -> None:
    """Released as the next probe, it cannot be claimed: another is released, and let through."""
    opened_for_all(ledger)
    ends(ledger, probe(ledger, "acme"), Health.FAILED)
    held = waits(ledger, "of another", org_id=with_another(ledger))
    mine = waits(ledger, "of acme")
    ledger.age(21)
    assert published(ledger) == [held]

    with ledger.holding(held):
        assert published(ledger) == [mine]
        assert isinstance(claim(ledger, mine), AttemptRef)


def claim_now(ledger: LedgerUnderTest, content: str) -> AttemptRef:
    """An attempt of acme at the fresh model, which is let through."""
    ref = claim(ledger, ledger.queued(content, model="fresh"))
    assert isinstance(ref, AttemptRef)
    return ref
