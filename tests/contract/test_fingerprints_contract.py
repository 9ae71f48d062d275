"""Fingerprints: each live worker shows what it is made of, as long as its lease."""

from __future__ import annotations

from dataclasses import replace

from callgate.domain.fingerprints import SILENT_SHOWN_S, ExpiredLease, Fingerprint
from tests.support.ledger_under_test import LEASE_S, REAPER, LedgerUnderTest
from tests.support.process_leases import LENGTH_S, pass_time

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
FIRST, SECOND = "host:1:first", "host:2:second"


def published(ledger: LedgerUnderTest) -> dict[str, Fingerprint | None]:
    """The fingerprints of the live workers, without the one that every test has."""
    workers = ledger.fingerprints.workers()
    return {w.worker_id: w.fingerprint for w in workers if w.worker_id in (FIRST, SECOND)}


def test_live_workers_show_what_they_are_made_of(ledger: LedgerUnderTest) -> None:
    other = replace(OURS, catalogue="another")
    for worker_id, fingerprint in ((SECOND, OURS), (FIRST, other)):
        ledger.leases.renew(worker_id, LEASE_S)
        ledger.fingerprints.publish(worker_id, fingerprint)

    assert list(published(ledger).items()) == [(FIRST, other), (SECOND, OURS)]


def test_a_worker_that_publishes_none_is_listed(ledger: LedgerUnderTest) -> None:
    """Like those of 0.1.0."""
    ledger.leases.renew(FIRST, LEASE_S)

    assert published(ledger) == {FIRST: None}


def test_a_fingerprint_survives_renewals_and_ends_with_the_lease(ledger: LedgerUnderTest) -> None:
    ledger.leases.renew(FIRST, LEASE_S)
    ledger.fingerprints.publish(FIRST, OURS)
    ledger.leases.renew(FIRST, LEASE_S)
    assert published(ledger) == {FIRST: OURS}

    ledger.leases.release(FIRST)
    assert published(ledger) == {}
    ledger.leases.renew(FIRST, LEASE_S)
    assert published(ledger) == {FIRST: None}


def test_a_worker_whose_lease_has_expired_is_not_listed(ledger: LedgerUnderTest) -> None:
    ledger.leases.renew(FIRST, LEASE_S)
    ledger.fingerprints.publish(FIRST, OURS)

    ledger.age(LEASE_S + 1)

    assert published(ledger) == {}


def test_a_fingerprint_without_a_lease_is_forgotten(ledger: LedgerUnderTest) -> None:
    ledger.fingerprints.publish(FIRST, OURS)

    assert published(ledger) == {}


def test_a_lease_that_ran_out_is_listed_with_its_silence(ledger: LedgerUnderTest) -> None:
    """Until another process reaps it. One that was released is not."""
    ledger.leases.renew(FIRST, LEASE_S)
    ledger.leases.renew(SECOND, LEASE_S)
    before = {lease.worker_id for lease in ledger.fingerprints.expired()}
    ledger.leases.release(SECOND)

    ledger.age(LEASE_S + 5)

    found = {lease.worker_id: lease.silent_s for lease in ledger.fingerprints.expired()}
    assert FIRST not in before
    assert SECOND not in found
    assert LEASE_S + 5 <= found[FIRST] < LEASE_S + 60


def test_a_silent_worker_stays_listed_after_its_calls_were_taken_over(
    ledger: LedgerUnderTest,
) -> None:
    """For an hour, unless it comes back: nobody looks in the second in which it is reaped."""
    ledger.leases.renew(FIRST, LENGTH_S)
    pass_time(ledger, LENGTH_S, REAPER.worker_id)
    (before,) = silent(ledger)
    assert (before.worker_id, before.is_taken_over) == (FIRST, False)

    ledger.leases.expire(REAPER.worker_id)
    (after,) = silent(ledger)
    assert (after.worker_id, after.since, after.is_taken_over) == (FIRST, before.since, True)

    ledger.leases.renew(FIRST, LENGTH_S)
    assert silent(ledger) == []
    ledger.leases.release(FIRST)
    ledger.age(SILENT_SHOWN_S)
    assert silent(ledger) == []


def test_sections_are_published_with_the_fingerprint(ledger: LedgerUnderTest) -> None:
    ledger.leases.renew(FIRST, LEASE_S)
    ledger.fingerprints.publish(FIRST, OURS, {"prices": "0123"})

    (found,) = (w for w in ledger.fingerprints.workers() if w.worker_id == FIRST)
    assert found.sections == {"prices": "0123"}


def silent(ledger: LedgerUnderTest) -> list[ExpiredLease]:
    return [lease for lease in ledger.fingerprints.expired() if lease.worker_id == FIRST]
