"""What must hold between the worker's settings."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.services.llm_service import Patience
from callgate.settings import ClientSettings
from config.settings import WorkerOptions, WorkerSettings, check_relations
from tests.unit.stage import OVERLAY, POLICY

TIMEOUT_S = ClientSettings.model_fields["ledger_timeout_s"].default


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
    grace_s = 5 * POLICY.deadline_s
    check(lease_s=6 * POLICY.deadline_s - 1, grace_s=grace_s)

    with pytest.raises(ConfigurationError, match="no sooner than without leases"):
        check(lease_s=6 * POLICY.deadline_s, grace_s=grace_s)


def test_a_record_must_fit_into_the_grace() -> None:
    """The one try and the back-off before it, or the end of an outage makes attempts unknown."""
    check(lease_s=1, grace_s=TIMEOUT_S * 3 / 2 + 0.1)

    with pytest.raises(ConfigurationError, match="a third of itself"):
        check(lease_s=1, grace_s=TIMEOUT_S * 3 / 2)


def test_the_longest_back_off_is_the_third_that_the_grace_is_checked_for() -> None:
    """Else the check above means nothing."""
    assert Patience(grace_s=30).backoff_s(failures=100, jitter=1.0) == 10


def test_an_outage_that_no_lease_notices_leaves_time_to_record() -> None:
    """Half a lease without a renewal is in order, so an attempt may be called lost right behind it."""
    check(lease_s=12, grace_s=TIMEOUT_S + 6.1)

    with pytest.raises(ConfigurationError, match="half of CALLGATE_WORKER__LEASE_S"):
        check(lease_s=12, grace_s=TIMEOUT_S + 6)


def test_a_drain_outlasts_the_longest_call() -> None:
    """Else stopping a worker makes outcomes unknown."""
    check(drain_s=POLICY.deadline_s + 1)

    with pytest.raises(ConfigurationError, match="CALLGATE_WORKER__DRAIN_S"):
        check(drain_s=POLICY.deadline_s)
