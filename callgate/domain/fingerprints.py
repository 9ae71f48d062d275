"""What a worker process publishes about itself, so that processes that differ are seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any

DIGEST_CHARS = 16
SILENT_SHOWN_S = 3_600.0
"""How long a process is listed as silent after its calls were taken over."""
NO_SECTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What workers of one ledger should have in common."""

    version: str
    """Of callgate."""
    schema_revision: str
    """The newest schema of the ledger that it knows."""
    settings: str
    """A digest of the settings that all workers should share."""
    catalogue: str
    """A digest of the catalogue."""


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker process whose lease has not expired."""

    worker_id: str
    began_at: datetime
    fingerprint: Fingerprint | None
    """None: it publishes none, like those of callgate 0.1."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """Digests of its catalogue's sections, by name."""


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """The lease of a worker process that froze, was killed, or cannot reach the ledger."""

    worker_id: str
    since: datetime
    """Its last renewal, by the ledger's clock."""
    silent_s: float
    is_taken_over: bool = False
    """Whether another process has taken its calls over. Such are listed for an hour."""


def digest_of(value: object) -> str:
    """A digest of plain data. Sets and dictionaries have no order."""
    text = json.dumps(_ordered(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def digests_of(sections: Mapping[str, object]) -> dict[str, str]:
    """A digest of each section."""
    return {name: digest_of(section) for name, section in sorted(sections.items())}


def differing_sections(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The names of sections that differ; empty also if one of the two has published none."""
    if not ours or not theirs:
        return []
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def differing(own: Fingerprint, workers: Sequence[LiveWorker]) -> dict[str, list[str]]:
    """The names of what differs, each with the workers in which it does. A worker without a fingerprint is older."""
    found: dict[str, list[str]] = {}
    for worker in workers:
        for part in fields(Fingerprint):
            theirs = worker.fingerprint and getattr(worker.fingerprint, part.name)
            is_other = theirs != getattr(own, part.name)
            if is_other and (worker.fingerprint is not None or part.name == "version"):
                found.setdefault(part.name, []).append(worker.worker_id)
    return found


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _ordered(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_ordered(inner) for inner in value), key=str)
    if isinstance(value, list | tuple):
        return [_ordered(inner) for inner in value]
    return value
