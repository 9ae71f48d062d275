"""The check of the worker processes: which are alive, which went silent, and whether they go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from callgate.domain.alert_words import SAME, SILENT
from callgate.domain.errors import LedgerUnavailable, NotMigrated, NotPermitted
from callgate.domain.fingerprints import (
    ExpiredLease,
    LiveWorker,
    differing,
    differing_sections,
)
from callgate.domain.ports import FingerprintPort
from callgate.domain.times import minute_of
from callgate.services.doctor import Check, Seen, failure, named, warning

START = "Start `callgate worker`."


@dataclass(frozen=True, slots=True)
class Own:
    """What this process is made of."""

    schema_revision: str
    catalogue: str | None
    """The digest of its catalogue; None if it has none of its own."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """Digests of its catalogue's sections, by name."""


def workers_check(fingerprints: FingerprintPort, own: Own, queued: Callable[[], int]) -> Check:
    """
    The check of the worker processes.

    Args:
        queued: How many calls wait for a worker.
    """
    return Check(
        "workers",
        lambda: _workers(fingerprints.workers(), fingerprints.expired(), own, queued),
        needs="schema",
        may_be_hidden=True,
    )


def _workers(
    alive: list[LiveWorker], expired: list[ExpiredLease], own: Own, queued: Callable[[], int]
) -> Seen:
    parts, todos = [f"{len(alive)} alive" if alive else "none is alive"], []
    if expired:
        parts.append(f"silent, and not stopped in order: {named([_silent(x) for x in expired])}")
        todos.append(SILENT)
    if not alive:
        return _none_alive(parts, [*todos, START], _known(queued))
    if faults := _differences(alive, own):
        parts += faults
        todos.append(SAME)
    if todos:
        return warning("; ".join(parts), " ".join(todos))
    return Seen(f"{len(alive)} alive, all of one version, settings and catalogue")


def _silent(lease: ExpiredLease) -> str:
    if not lease.is_taken_over:
        return f"{lease.worker_id} for {lease.silent_s:.0f} s"
    return (
        f"{lease.worker_id} stopped renewing at {minute_of(lease.since)}; its calls were taken over"
    )


def alive_or_none(fingerprints: FingerprintPort) -> int | None:
    """How many worker processes are alive; None where that is not known."""
    try:
        return len(fingerprints.workers())
    except (LedgerUnavailable, NotMigrated, NotPermitted):
        return None


def _none_alive(parts: list[str], todos: Sequence[str], waiting: int) -> Seen:
    if not waiting:
        return warning("; ".join(parts), " ".join(todos))
    return failure(
        "; ".join([f"{parts[0]}, and {waiting} calls wait for one", *parts[1:]]), " ".join(todos)
    )


def _known(queued: Callable[[], int]) -> int:
    """How many calls wait; 0 where that is not known."""
    try:
        return queued()
    except (LedgerUnavailable, NotMigrated, NotPermitted):
        return 0


def _differences(alive: list[LiveWorker], own: Own) -> list[str]:
    told = [worker for worker in alive if worker.fingerprint is not None]
    faults = []
    if silent := [worker.worker_id for worker in alive if worker.fingerprint is None]:
        faults.append(f"of callgate 0.1, or just starting: {named(silent)}")
    if not told or told[0].fingerprint is None:
        return faults
    for name, ids in differing(told[0].fingerprint, told).items():
        others = [worker for worker in told if worker.worker_id in ids]
        what = f"catalogue{_sections(told[0], others)}" if name == "catalogue" else name
        faults.append(
            f"{what.replace('_', ' ')} of {told[0].worker_id} differs from that of {named(ids)}"
        )
    faults += _against_own(told, own)
    if own.schema_revision not in {w.fingerprint.schema_revision for w in told if w.fingerprint}:
        faults.append("no worker is of this version")
    return faults


def _sections(worker: LiveWorker, others: Sequence[LiveWorker]) -> str:
    found = {name for w in others for name in differing_sections(worker.sections, w.sections)}
    return f" ({', '.join(sorted(found))})" if found else ""


def _against_own(told: Sequence[LiveWorker], own: Own) -> list[str]:
    """Which workers have another catalogue than this process; nothing if all have the same."""
    if own.catalogue is None:
        return []
    same = [w.worker_id for w in told if w.fingerprint and w.fingerprint.catalogue == own.catalogue]
    if len(same) == len(told):
        return []
    if same:
        return [f"{named(same)} has the catalogue of this process, and the others have not"]
    found = {n for w in told for n in differing_sections(own.sections, w.sections)}
    what = f" ({', '.join(sorted(found))} differ)" if found else ""
    return [f"no worker has the catalogue of this process{what}"]
