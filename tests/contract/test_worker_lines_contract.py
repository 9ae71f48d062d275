"""What operators see of workers: leases, what is in flight, open calls, quarantine."""

from __future__ import annotations

from datetime import timedelta

from callgate.domain.calls import CallState, WaitReason
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.ledger import Defer
from callgate.domain.worker_lines import OpenLine, WorkerLine
from tests.support.ledger_under_test import LEASE_S, LedgerUnderTest, a_loss, a_reserve

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
FIRST, SECOND = "host:1:first", "host:2:second"


def lines(ledger: LedgerUnderTest) -> dict[str, WorkerLine]:
    """The two workers, in the order of the list."""
    return {w.worker_id: w for w in ledger.workers.worker_lines() if w.worker_id in (FIRST, SECOND)}


def test_a_worker_shows_its_lease_and_what_it_is_made_of(ledger: LedgerUnderTest) -> None:
    """Live ones come first; one that stopped in order is gone."""
    for worker_id in (FIRST, SECOND):
        ledger.leases.renew(worker_id, LEASE_S, slots=8)
        ledger.fingerprints.publish(worker_id, OURS)
    ledger.age(LEASE_S + 5)
    ledger.leases.renew(SECOND, LEASE_S, slots=4)

    found = lines(ledger)

    assert list(found) == [SECOND, FIRST]
    assert [found[w].is_live for w in (SECOND, FIRST)] == [True, False]
    assert (found[SECOND].slots, found[SECOND].in_flight) == (4, 0)
    assert found[FIRST].fingerprint == OURS
    assert LEASE_S + 5 <= found[FIRST].silent_s < LEASE_S + 60
    assert 0 <= found[SECOND].silent_s < 60
    ledger.leases.release(FIRST)
    assert list(lines(ledger)) == [SECOND]


def test_attempts_under_way_are_counted_for_their_process(ledger: LedgerUnderTest) -> None:
    """Whatever the number of the claim; answered ones too, until they are posted."""
    ledger.leases.renew(FIRST, LEASE_S)
    for number in range(2):
        ledger.reserve(a_reserve(ledger.queued(f"{number}"), worker_id=f"{FIRST}/{number}"))

    assert lines(ledger)[FIRST].in_flight == 2


def test_open_calls_are_counted_by_state_reason_and_lane(ledger: LedgerUnderTest) -> None:
    """With the age of the oldest; ended calls are none of them."""
    ledger.succeeded("ended")
    ledger.queued("one")
    ledger.age(60)
    ledger.queued("two")
    ledger.running("three")
    ledger.waiting("four", due_in_s=60.0)

    found = {
        (line.state, line.wait_reason, line.lane): line for line in ledger.workers.open_lines()
    }

    assert {name: line.calls for name, line in found.items()} == {
        ("queued", "", "call"): 2, ("running", "", ""): 1, ("waiting", "retry", ""): 1,
    }  # fmt: skip
    assert isinstance(found["running", "", ""], OpenLine)
    assert ledger.now() - found["queued", "", "call"].oldest_at >= timedelta(seconds=59)


def test_calls_that_may_have_killed_a_worker_are_listed(ledger: LedgerUnderTest) -> None:
    """Those whose worker vanished, and those that wait for a process of their own. Oldest first."""
    ledger.running("fine")
    ref = ledger.running("lost")
    ledger.settle(a_loss(ref))
    ledger.age(10)
    key = ledger.queued("alone")
    ledger.reserve(Defer(key, '{"code": "quarantined"}', 60.0, WaitReason.QUARANTINE))

    lost, alone = ledger.workers.quarantined()

    assert (lost.key, lost.state, lost.worker_losses) == (ref.key, "waiting", 1)
    assert (alone.key, alone.wait_reason, alone.worker_losses) == (key, "quarantine", 0)
    assert ledger.workers.quarantined(limit=1) == [lost]
    assert ledger.state(ref.key) is CallState.WAITING


def test_a_call_that_ended_is_in_quarantine_no_more(ledger: LedgerUnderTest) -> None:
    """Its loss stays in its attempts."""
    ref = ledger.running("lost")
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))

    assert ledger.workers.quarantined() == []
