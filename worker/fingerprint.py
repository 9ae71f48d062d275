"""What a worker process is made of, as it publishes it."""

from __future__ import annotations

from callgate import __version__
from callgate.adapters.postgres.version import SCHEMA_REVISION
from callgate.domain.catalogue import Catalogue
from callgate.domain.fingerprints import Fingerprint, digest_of, digests_of
from config.settings import WorkerSettings

SHARED = (
    "attempt_grace_s",
    "default_daily_usd",
    "process_lease_s",
    "sweep_min_age_s",
)
"""Options that decide about calls of other workers, or about money: all workers should have the same."""


def sections_of(catalogue: Catalogue) -> dict[str, str]:
    """Digests of the catalogue's sections, by name."""
    return digests_of(catalogue.model_dump())


def fingerprint_of(settings: WorkerSettings, catalogue: Catalogue) -> Fingerprint:
    """The fingerprint of a worker with these settings. It holds digests only."""
    options = {name: getattr(settings.worker, name) for name in SHARED}
    shared = {**options, "broker_prefix": settings.broker_prefix}
    return Fingerprint(
        __version__, SCHEMA_REVISION, digest_of(shared), digest_of(catalogue.model_dump())
    )
