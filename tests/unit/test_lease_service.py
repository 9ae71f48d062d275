"""A process's own side of its lease: when it may rely on it, and who keeps it alive."""

from __future__ import annotations

import threading

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.errors import LedgerUnavailable
from callgate.services.lease import LeaseService
from tests.support.service_world import ManualClock
from tests.support.waiting import until
from worker.lease_renewer import LeaseRenewer

LEASE_S = 8.0


class Scene:
    """One process, and a reaper whose own lease is always fresh."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.leases = MemoryLedger(clock=self.clock.now).leases
        self.lease = LeaseService(
            leases=self.leases, clock=self.clock, worker_id="host:1", lease_s=LEASE_S, slots=5
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass; only the reaper renews."""
        for _ in range(round(seconds)):
            self.leases.renew("reaper", LEASE_S)
            self.clock.elapsed_s += 1
        self.leases.renew("reaper", LEASE_S)


def test_nothing_is_held_before_the_first_renewal() -> None:
    """Nor after a release."""
    scene = Scene()
    before = scene.lease.epoch()
    scene.lease.renew()
    during = scene.lease.epoch()
    scene.lease.release()

    assert before is None
    assert during is not None
    assert scene.lease.epoch() is None


def test_a_process_relies_on_half_of_its_lease() -> None:
    """The other half lies between its last request and the earliest expiry."""
    scene = Scene()
    scene.lease.renew()
    began_at = scene.lease.epoch()

    scene.clock.elapsed_s += LEASE_S / 2 - 0.1
    assert scene.lease.epoch() == began_at
    scene.clock.elapsed_s += 0.1
    assert scene.lease.epoch() is None


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    """An answer may take long; the ledger counted from some moment in between."""
    scene = Scene()
    renew = scene.leases.renew

    def slow_renew(worker_id: str, lease_s: float, slots: int | None = None):  # type: ignore[no-untyped-def]
        began_at = renew(worker_id, lease_s, slots)
        scene.clock.elapsed_s += 3
        return began_at

    scene.leases.renew = slow_renew  # type: ignore[method-assign]
    scene.lease.renew()

    scene.clock.elapsed_s += 1
    assert scene.lease.epoch() is None


def test_a_renewal_that_failed_leaves_what_was_held() -> None:
    """Until its half is over; then one that succeeds brings the same lease back, because nobody expired it."""
    scene = Scene()
    scene.lease.renew()
    began_at = scene.lease.epoch()
    renew, scene.leases.renew = scene.leases.renew, _away  # type: ignore[assignment, method-assign]

    scene.clock.elapsed_s += 2
    with pytest.raises(LedgerUnavailable):
        scene.lease.renew()
    held_on = scene.lease.epoch()
    scene.clock.elapsed_s += 60
    ran_out = scene.lease.epoch()
    scene.leases.renew = renew  # type: ignore[method-assign]
    scene.lease.renew()

    assert (held_on, ran_out) == (began_at, None)
    assert scene.lease.epoch() == began_at


def test_a_lease_that_was_expired_has_a_new_epoch_afterwards() -> None:
    """What was claimed under the old one may not be sent under the new one."""
    scene = Scene()
    scene.lease.renew()
    began_at = scene.lease.epoch()
    scene.pass_time(LEASE_S)
    assert scene.leases.expire("reaper") == ["host:1"]

    scene.lease.renew()

    assert scene.lease.epoch() not in (None, began_at)


def test_an_expiry_is_noticed_though_the_first_renewal_after_it_got_no_answer() -> None:
    """The ledger had granted a new lease, and the answer was lost: the next answer still names another beginning."""
    scene = Scene()
    scene.lease.renew()
    began_at = scene.lease.epoch()
    scene.pass_time(LEASE_S)
    scene.leases.expire("reaper")
    scene.leases.renew("host:1", LEASE_S)
    scene.clock.elapsed_s += 1

    scene.lease.renew()

    assert scene.lease.epoch() not in (None, began_at)


def _away(*_: object) -> None:
    raise LedgerUnavailable("away")


# The thread.


class CountingLease:
    """Counts what the renewer asks for; `fault` is raised by every renewal while it is set."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.renewals = self.releases = self.faults = 0
        self.thread: str | None = None

    def renew(self) -> None:
        """Prolong, or fail."""
        self.thread = threading.current_thread().name
        if self.fault is not None:
            self.faults += 1
            raise self.fault
        self.renewals += 1

    def release(self) -> None:
        """Give it back."""
        self.releases += 1


def test_a_renewer_renews_until_it_is_stopped_and_then_releases() -> None:
    """In its own thread; the connection is closed last."""
    lease, closed = CountingLease(), threading.Event()
    renewer = LeaseRenewer(lease, lease_s=0.04, close=closed.set)  # type: ignore[arg-type]

    renewer.start()
    until(lambda: lease.renewals >= 3)
    assert lease.releases == 0
    renewer.stop()

    assert (lease.releases, closed.is_set()) == (1, True)
    assert lease.thread == "lease"


@pytest.mark.parametrize("fault", [LedgerUnavailable("away"), RuntimeError("unforeseen")])
def test_a_renewer_survives_errors(fault: Exception) -> None:
    """Without it the process would never claim again."""
    lease = CountingLease()
    lease.fault = fault
    renewer = LeaseRenewer(lease, lease_s=0.04, close=lambda: None)  # type: ignore[arg-type]

    renewer.start()
    until(lambda: lease.faults >= 2)
    lease.fault = None
    until(lambda: lease.renewals >= 1)
    renewer.stop()

    assert lease.releases == 1
