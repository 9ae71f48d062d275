"""What must hold between the worker's settings."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.settings import ClientSettings
from config.settings import WorkerOptions, WorkerSettings, check_relations
from tests.unit.stage import OVERLAY, POLICY

LONGEST_S = POLICY.deadline_s + WorkerOptions().grace_s


def check(**options: float) -> None:
    """Check the defaults with some options changed."""
    settings = WorkerSettings(
        database_url=SecretStr("postgresql+psycopg2://nowhere/none"),
        broker_url=SecretStr("redis://nowhere/0"),
        worker=WorkerOptions(**options),
    )
    check_relations(settings, Catalogue(providers={}, default=POLICY, prices=(OVERLAY,)))


def test_the_defaults_work_together() -> None:
    """Nothing to say."""
    check()


def test_a_lease_that_helps_nobody_is_refused() -> None:
    """As long as deadline and grace together, it would notice a death no sooner than they do."""
    check(lease_s=LONGEST_S - 1)

    with pytest.raises(ConfigurationError, match="CALLGATE_WORKER__LEASE_S"):
        check(lease_s=LONGEST_S)


def test_a_record_must_fit_into_the_grace() -> None:
    """Else one slow answer of Postgres makes an attempt unknown."""
    check(grace_s=ClientSettings.model_fields["ledger_timeout_s"].default + 1)

    with pytest.raises(ConfigurationError, match="must be below CALLGATE_WORKER__GRACE_S"):
        check(grace_s=ClientSettings.model_fields["ledger_timeout_s"].default)


def test_a_drain_outlasts_the_longest_call() -> None:
    """Else stopping a worker makes outcomes unknown."""
    check(drain_s=POLICY.deadline_s + 1)

    with pytest.raises(ConfigurationError, match="CALLGATE_WORKER__DRAIN_S"):
        check(drain_s=POLICY.deadline_s)
