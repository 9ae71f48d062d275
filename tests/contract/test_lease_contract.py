"""Leases: who is called dead, by whom, and what becomes of the calls in its hands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from callgate.adapters.postgres.leases import EXPIRED_MAX
from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.ledger import Due, DueKind, Reaper, RecordOutcome, Reserved
from tests.support.ledger_under_test import (
    LEASE_S,
    LINK,
    LedgerUnderTest,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
)
from tests.support.process_leases import DEAD, LENGTH_S, REAPER, claimed_by, pass_time

GRACE_S = 12.0
"""For how long a reaper's lease must have been stable before it expires an attempt."""


def test_calls_of_a_dead_worker_are_due_long_before_their_deadline(ledger: LedgerUnderTest) -> None:
    """Dispatched and answered ones; the caller that takes them treats them as expired."""
    ledger.leases.renew(DEAD, LENGTH_S)
    sent, kept = claimed_by(ledger, DEAD, "sent"), claimed_by(ledger, DEAD, "kept")
    ledger.record(an_answer(kept))

    pass_time(ledger, LENGTH_S, REAPER)

    assert ledger.leases.expire(REAPER) == [DEAD]
    assert set(ledger.due()) == {
        Due(DueKind.EXPIRED, sent.key, sent.attempt_id),
        Due(DueKind.SETTLE, kept.key, kept.attempt_id),
    }


def test_a_lease_is_expired_once(ledger: LedgerUnderTest) -> None:
    """It is gone once it was expired."""
    ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, LENGTH_S, REAPER)

    assert ledger.leases.expire(REAPER) == [DEAD]
    assert ledger.leases.expire(REAPER) == []


def test_who_renews_is_left_alone(ledger: LedgerUnderTest) -> None:
    """However long its calls take."""
    ref = claimed_by(ledger, "host:3:alive")

    pass_time(ledger, 3 * LENGTH_S, REAPER, "host:3:alive")

    assert ledger.leases.expire(REAPER) == []
    assert ledger.due() == ()
    assert ledger.view(ref).last is not None


def test_a_lease_that_has_not_run_out_is_left_alone(ledger: LedgerUnderTest) -> None:
    """Its process may only be slow."""
    pass_time(ledger, LENGTH_S, REAPER)
    ledger.leases.renew(DEAD, LENGTH_S)

    pass_time(ledger, LENGTH_S * 0.75, REAPER)
    early = ledger.leases.expire(REAPER)
    pass_time(ledger, LENGTH_S * 0.25, REAPER)

    assert early == []
    assert ledger.leases.expire(REAPER) == [DEAD]


def test_calls_of_others_are_not_touched(ledger: LedgerUnderTest) -> None:
    """Neither those of a process that is alive, nor those of one without a lease: these have their deadlines."""
    ledger.leases.renew(DEAD, LENGTH_S)
    lost = claimed_by(ledger, DEAD, "lost")
    claimed_by(ledger, "host:3:alive", "of the living")
    claimed_by(ledger, "host:4:old version", "without a lease")
    claimed_by(ledger, DEAD + "er", "of a longer name")

    pass_time(ledger, LENGTH_S, REAPER, "host:3:alive")
    ledger.leases.expire(REAPER)

    assert [due.key for due in ledger.due()] == [lost.key]


def test_a_worker_without_a_lease_has_its_deadline(ledger: LedgerUnderTest) -> None:
    """The older rule stays: what is not recorded by deadline and grace is due."""
    ref = claimed_by(ledger, "host:4:old version")

    pass_time(ledger, LEASE_S + LENGTH_S, REAPER)

    assert ledger.leases.expire(REAPER) == []
    assert ledger.due_kinds() == [(DueKind.EXPIRED, ref.key)]


# Who may expire leases.


def test_a_process_without_a_lease_expires_nobody(ledger: LedgerUnderTest) -> None:
    """It cannot know whether the ledger was there."""
    ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, 3 * LENGTH_S)

    assert ledger.leases.expire(REAPER) == []


def test_a_new_process_expires_nobody_for_the_length_of_a_lease(ledger: LedgerUnderTest) -> None:
    """By then everyone who is alive has renewed."""
    ledger.leases.renew(DEAD, LENGTH_S)
    ledger.age(3 * LENGTH_S)

    pass_time(ledger, LENGTH_S * 0.75, REAPER)
    early = ledger.leases.expire(REAPER)
    pass_time(ledger, LENGTH_S * 0.25, REAPER)

    assert early == []
    assert ledger.leases.expire(REAPER) == [DEAD]


@pytest.mark.parametrize("outage_s", [LENGTH_S * 0.4, LENGTH_S * 0.8, LENGTH_S * 1.5, 3_600.0])
def test_an_outage_makes_nobody_lost(ledger: LedgerUnderTest, outage_s: float) -> None:
    """The first process that comes back must not expire those that come back a moment later."""
    alive = "host:3:alive"
    pass_time(ledger, 2 * LENGTH_S, REAPER, alive)
    claimed_by(ledger, alive)
    ledger.age(outage_s)

    at_once = ledger.leases.expire(REAPER)
    ledger.leases.renew(REAPER, LENGTH_S)
    after_its_own_renewal = ledger.leases.expire(REAPER)
    ledger.age(LENGTH_S / 8)
    a_moment_later = ledger.leases.expire(REAPER)
    pass_time(ledger, 3 * LENGTH_S, REAPER, alive)

    assert (at_once, after_its_own_renewal, a_moment_later) == ([], [], [])
    assert ledger.leases.expire(REAPER) == []


def test_a_statement_that_runs_after_an_outage_expires_nobody(ledger: LedgerUnderTest) -> None:
    """It was sent before; a stopped Postgres runs it when it goes on, and nobody has renewed since."""
    ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, LENGTH_S / 2, REAPER)
    pass_time(ledger, LENGTH_S * 0.25, REAPER)
    ledger.age(60)

    assert ledger.leases.expire(REAPER) == []


def test_no_process_expires_its_own_lease(ledger: LedgerUnderTest) -> None:
    """A lease that has run out is not fresh enough to expire any."""
    pass_time(ledger, 2 * LENGTH_S, REAPER)
    ledger.age(LENGTH_S + 1)

    assert ledger.leases.expire(REAPER) == []


def test_of_many_dead_workers_a_few_are_released_at_a_time(ledger: LedgerUnderTest) -> None:
    """All of them come to it."""
    dead = {f"host:{n}:dead" for n in range(EXPIRED_MAX + 3)}
    for worker_id in dead:
        ledger.leases.renew(worker_id, LENGTH_S)
    pass_time(ledger, LENGTH_S, REAPER)

    gone = ledger.leases.expire(REAPER) + ledger.leases.expire(REAPER)

    assert len(gone) == len(dead)
    assert set(gone) == dead


def test_concurrent_reapers_share_the_dead(ledger: LedgerUnderTest) -> None:
    """Each lease is released by one of them, and every call is due once."""
    reapers = [f"host:{n}:reaper" for n in range(4)]
    refs = []
    for n in range(8):
        ledger.leases.renew(f"host:{n}:dead", LENGTH_S)
        refs.append(claimed_by(ledger, f"host:{n}:dead", f"page {n}"))
    pass_time(ledger, LENGTH_S, *reapers)

    with ThreadPoolExecutor(4) as pool:
        gone = [
            worker_id for found in pool.map(ledger.leases.expire, reapers) for worker_id in found
        ]

    assert sorted(gone) == [f"host:{n}:dead" for n in range(8)]
    assert {due.key for due in ledger.due()} == {ref.key for ref in refs}


# Who may expire an attempt whose deadline and grace are over.


def expired_by(ledger: LedgerUnderTest, worker_id: str = REAPER) -> list[AttemptRef]:
    """What a process may call lost now."""
    batch = ledger.ledger.take_due(limit=100, reaper=Reaper(worker_id, GRACE_S))
    return [
        AttemptRef(due.key, due.attempt_id)
        for due in batch.items
        if due.kind is DueKind.EXPIRED and due.attempt_id is not None
    ]


def test_an_expired_attempt_is_left_by_a_process_without_a_lease(ledger: LedgerUnderTest) -> None:
    """It stays as it is, for one that has a lease."""
    ref = ledger.running()
    ledger.age(LEASE_S + 1)
    before = ledger.view(ref)

    assert expired_by(ledger, "host:4:no lease") == []
    assert ledger.view(ref) == before
    pass_time(ledger, GRACE_S, REAPER)
    assert expired_by(ledger) == [ref]


def test_a_new_process_calls_no_attempt_lost_for_one_grace(ledger: LedgerUnderTest) -> None:
    """By then everyone who is alive has recorded."""
    ref = ledger.running()
    ledger.age(LEASE_S + 1)

    pass_time(ledger, GRACE_S - LENGTH_S / 4, REAPER)
    early = expired_by(ledger)
    pass_time(ledger, LENGTH_S / 4, REAPER)

    assert early == []
    assert expired_by(ledger) == [ref]


@pytest.mark.parametrize("outage_s", [LENGTH_S * 0.6, LENGTH_S * 1.5, 3_600.0])
def test_an_outage_makes_no_attempt_lost(ledger: LedgerUnderTest, outage_s: float) -> None:
    """Neither by a statement that was sent before and runs first, nor by one after its sender has renewed."""
    pass_time(ledger, 2 * GRACE_S, REAPER)
    ref = ledger.running()
    ledger.age(max(0.0, LEASE_S + 1 - outage_s))
    ledger.leases.renew(REAPER, LENGTH_S)
    ledger.age(outage_s)

    at_once = expired_by(ledger)
    ledger.leases.renew(REAPER, LENGTH_S)
    after_its_own_renewal = expired_by(ledger)
    pass_time(ledger, GRACE_S - LENGTH_S / 4, REAPER)
    within_the_grace = expired_by(ledger)
    pass_time(ledger, LENGTH_S / 4, REAPER)

    assert (at_once, after_its_own_renewal, within_the_grace) == ([], [], [])
    assert expired_by(ledger) == [ref]


def test_a_process_that_may_not_expire_still_takes_the_rest(ledger: LedgerUnderTest) -> None:
    """Retries, answers and links are nobody's loss."""
    ledger.running("expired")
    answered, waiting = ledger.answered("answered"), ledger.waiting("waiting")
    ledger.age(LEASE_S + 1)

    batch = ledger.ledger.take_due(limit=100, reaper=Reaper("host:4:no lease", GRACE_S))

    assert {due.key for due in batch.items} == {answered.key, waiting.key}


# Life of a lease.


def test_a_lease_keeps_its_beginning(ledger: LedgerUnderTest) -> None:
    """Also if it is renewed too late: nobody expired it meanwhile, so nothing was taken away."""
    ledger.leases.renew(DEAD, LENGTH_S)
    ledger.age(3_600)

    late, later = ledger.leases.renew(DEAD, LENGTH_S), ledger.leases.renew(DEAD, LENGTH_S)

    assert late == later
    assert (ledger.now() - late).total_seconds() >= 3_600


def test_a_lease_that_was_expired_begins_again(ledger: LedgerUnderTest) -> None:
    """So its process learns that what it had claimed was given away."""
    began_at = ledger.leases.renew(DEAD, LENGTH_S)
    pass_time(ledger, LENGTH_S, REAPER)
    ledger.leases.expire(REAPER)

    assert ledger.leases.renew(DEAD, LENGTH_S) > began_at


def test_a_released_lease_leaves_nothing_behind(ledger: LedgerUnderTest) -> None:
    """A clean shutdown with calls cut off: they are due at once, and there is no lease left to expire."""
    ledger.leases.renew(DEAD, LENGTH_S)
    ref = claimed_by(ledger, DEAD)

    ledger.leases.release(DEAD)

    assert ledger.due() == (Due(DueKind.EXPIRED, ref.key, ref.attempt_id),)
    pass_time(ledger, 2 * LENGTH_S, REAPER)
    assert ledger.leases.expire(REAPER) == []


def test_releasing_what_is_not_there_changes_nothing(ledger: LedgerUnderTest) -> None:
    """A release may come twice, or after the lease was expired."""
    ref = ledger.running()

    ledger.leases.release(DEAD)

    assert ledger.due() == ()
    assert ledger.state(ref.key) is CallState.RUNNING


# What a process that was called dead does when it wakes.


def test_a_zombies_answer_is_late_and_posted_once(ledger: LedgerUnderTest) -> None:
    """Its attempt was posted in full; the truth replaces that, and ends the call that waited for another try."""
    ledger.leases.renew(DEAD, LENGTH_S)
    ref = claimed_by(ledger, DEAD)
    pass_time(ledger, LENGTH_S, REAPER)
    ledger.leases.expire(REAPER)
    ledger.due()
    ledger.settle(a_loss(ref))
    in_full = ledger.figures()

    outcomes = [*ledger.record(an_answer(ref)), *ledger.record(an_answer(ref))]
    truth = a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN)
    (settled,), (again,) = ledger.settle(truth), ledger.settle(truth)

    assert in_full == (0, 100)
    assert outcomes == [RecordOutcome.LATE, RecordOutcome.CLOSED]
    assert (settled.is_applied, again.is_applied) == (True, False)
    assert settled.state is CallState.SUCCEEDED
    assert ledger.figures() == (0, 60)


def test_a_hold_of_an_overtaken_attempt_falls_due_with_its_worker(ledger: LedgerUnderTest) -> None:
    """Its call has ended by an earlier attempt; the money comes to its posting all the same."""
    first = ledger.lost(link=LINK)
    ledger.requeued(first.key)
    ledger.leases.renew(DEAD, LENGTH_S)
    (second,) = ledger.reserve(a_reserve(first.key, worker_id=f"{DEAD}/1"))
    assert isinstance(second, Reserved)
    ledger.record(an_answer(first))
    (settled,) = ledger.settle(a_success(first, 60, expected_status=AttemptStatus.UNKNOWN))
    ledger.deliver(*(d.submission_id for d in ledger.links(keys=[settled.ref.key])))

    pass_time(ledger, LENGTH_S, REAPER)
    ledger.leases.expire(REAPER)

    assert ledger.due() == (Due(DueKind.EXPIRED, first.key, second.ref.attempt_id),)
