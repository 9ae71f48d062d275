"""What differs between workers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from callgate.domain.fingerprints import Fingerprint
from callgate.domain.worker_lines import WorkerLine, odd_parts, usual_parts

AT = datetime(2026, 11, 18, 12, tzinfo=UTC)
OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")


def a_worker(name: str, fingerprint: Fingerprint | None = OURS, **changes: object) -> WorkerLine:
    """A live worker."""
    line = WorkerLine(f"host:1:{name}", AT, 1.0, True, 8, 0, fingerprint)
    return replace(line, **changes)  # type: ignore[arg-type]


def test_what_most_workers_are_made_of_is_usual() -> None:
    """Part by part; expired leases do not count."""
    other = replace(OURS, catalogue="another", version="0.3.0")
    gone = a_worker("e", Fingerprint("9", "9", "9", "9"), is_live=False)
    workers = [a_worker("a"), a_worker("b"), a_worker("c", other), a_worker("d", None), gone, gone]

    usual = usual_parts(workers)

    assert usual == {"version": "0.2.0", "schema_revision": "0002", "settings": "settings",
                     "catalogue": "catalogue"}  # fmt: skip
    assert [odd_parts(w, usual) for w in workers] == [
        (), (), ("version", "catalogue"), ("version",), (), ()
    ]  # fmt: skip


def test_of_two_that_differ_the_later_version_is_usual() -> None:
    """During an upgrade the older one is pointed at, whichever is listed first."""
    newer = replace(OURS, version="0.3.0")
    for workers in ([a_worker("a"), a_worker("b", newer)], [a_worker("b", newer), a_worker("a")]):
        assert usual_parts(workers)["version"] == "0.3.0"


def test_workers_that_say_nothing_do_not_differ() -> None:
    """Nothing is known of what is usual."""
    worker = a_worker("a", None)

    assert usual_parts([worker]) == {}
    assert odd_parts(worker, {}) == ()
    assert worker.host == "host"
