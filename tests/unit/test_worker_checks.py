"""The doctor's check of worker processes: none, silent ones, and ones that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.fingerprints import NO_SECTIONS, ExpiredLease, Fingerprint, LiveWorker
from callgate.services.doctor import FindingStatus, Seen
from callgate.services.worker_checks import SAME, SILENT, START, Own, alive_or_none, workers_check

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
OTHER = replace(OURS, catalogue="another")
AT = datetime(2026, 11, 1, tzinfo=UTC)


def live(name: str, fingerprint: Fingerprint | None = OURS) -> LiveWorker:
    return LiveWorker(name, AT, fingerprint)


class Processes:
    """`FingerprintPort` of these processes."""

    def __init__(self, alive: list[LiveWorker], expired: list[ExpiredLease] | None = None) -> None:
        self._alive = alive
        self._expired = expired or []

    def publish(
        self, worker_id: str, fingerprint: Fingerprint, sections: Mapping[str, str] = NO_SECTIONS
    ) -> None: ...

    def workers(self) -> list[LiveWorker]:
        return self._alive

    def expired(self) -> list[ExpiredLease]:
        return self._expired


def look(processes: Processes, *, catalogue: str | None = None, queued: int = 0) -> Seen:
    seen = workers_check(processes, Own("0002", catalogue), lambda: queued).look()
    assert isinstance(seen, Seen)
    return seen


@pytest.mark.parametrize(
    ("alive", "catalogue", "words"),
    [
        ([live("a"), live("b", OTHER)], None, "catalogue of a differs from that of b"),
        ([live("a"), live("b", None)], None, "of callgate 0.1, or just starting: b"),
        ([live("a")], "mine", "no worker has the catalogue of this process"),
        ([live("a", replace(OURS, schema_revision="0003"))], None, "no worker is of this version"),
    ],
)
def test_what_does_not_go_together_is_a_warning(
    alive: list[LiveWorker], catalogue: str | None, words: str
) -> None:
    seen = look(Processes(alive), catalogue=catalogue)

    assert (seen.status, seen.todo) == (FindingStatus.WARN, SAME)
    assert words in seen.sentence


def test_workers_that_are_alike_are_fine() -> None:
    seen = look(Processes([live("a"), live("b")]), catalogue="catalogue", queued=5)

    assert seen == Seen("2 alive, all of one version, settings and catalogue")


def test_without_a_worker_calls_that_wait_make_the_difference() -> None:
    """Before the first start nothing is amiss yet."""
    idle, stuck = look(Processes([])), look(Processes([]), queued=12)

    assert (idle.status, idle.sentence, idle.todo) == (FindingStatus.WARN, "none is alive", START)
    assert stuck.status is FindingStatus.FAIL
    assert stuck.sentence == "none is alive, and 12 calls wait for one"


def test_a_backlog_that_is_not_known_hides_no_missing_worker() -> None:
    def unknown() -> int:
        raise LedgerUnavailable("slow")

    seen = workers_check(Processes([]), Own("0002", None), unknown).look()

    assert isinstance(seen, Seen)
    assert seen.status is FindingStatus.WARN


@pytest.mark.parametrize("alive", [[], [live("a")]])
def test_a_silent_worker_is_named_with_its_silence(alive: list[LiveWorker]) -> None:
    seen = look(Processes(alive, [ExpiredLease("host:7:x", AT, 41.6)]))

    assert seen.status is FindingStatus.WARN
    assert "silent, and not stopped in order: host:7:x for 42 s" in seen.sentence
    assert SILENT in str(seen.todo)


def test_a_worker_whose_calls_were_taken_over_stays_in_view() -> None:
    seen = look(Processes([live("a")], [ExpiredLease("host:7:x", AT, 900.0, is_taken_over=True)]))

    assert seen.status is FindingStatus.WARN
    assert (
        "host:7:x stopped renewing at 2026-11-01 00:00 UTC; its calls were taken over"
        in seen.sentence
    )


def test_the_worker_that_is_like_this_process_is_named() -> None:
    other = replace(live("b", OTHER), sections={"prices": "2", "providers": "1"})
    ours = replace(live("a"), sections={"prices": "1", "providers": "1"})

    mixed = look(Processes([ours, other]), catalogue="catalogue").sentence
    assert "catalogue (prices) of a differs from that of b" in mixed
    assert "a has the catalogue of this process, and the others have not" in mixed


def test_without_such_a_worker_what_differs_is_named() -> None:
    own = Own("0002", "mine", {"prices": "1", "providers": "1"})
    other = replace(live("b"), sections={"prices": "2", "providers": "1"})
    seen = workers_check(Processes([other]), own, lambda: 0).look()

    assert isinstance(seen, Seen)
    assert "no worker has the catalogue of this process (prices differ)" in seen.sentence


def test_how_many_are_alive_may_be_unknown() -> None:
    class Hidden(Processes):
        def workers(self) -> list[LiveWorker]:
            raise LedgerUnavailable("slow")

    assert alive_or_none(Processes([live("a")])) == 1
    assert alive_or_none(Hidden([])) is None
