"""The doctor on a broker that may lose messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.checks import broker_checks
from callgate.services.doctor import Finding, FindingStatus, run_checks
from tests.support.valkey import Valkey

OK, WARN, FAIL = FindingStatus


@pytest.fixture
def settings(valkey: Valkey) -> Iterator[Valkey]:
    """A server whose settings are put back."""
    names = ("appendonly", "maxmemory", "maxmemory-policy")
    before = {name: str(valkey.client.config_get(name)[name]) for name in names}
    yield valkey
    for name, value in before.items():
        valkey.client.config_set(name, value)


def look(valkey: Valkey, name: str) -> Finding:
    """One finding about the broker."""
    checks = broker_checks(build_app(valkey.url, timeout_s=1.0), timeout_s=1.0)
    return next(
        f for f in run_checks([c for c in checks if c.name in ("broker", name)]) if f.name == name
    )


def test_a_broker_without_persistence_is_found(settings: Valkey) -> None:
    assert look(settings, "persistence").status is OK
    settings.client.config_set("appendonly", "no")

    finding = look(settings, "persistence")

    assert (finding.status, finding.todo) == (WARN, "Set appendonly to yes.")


@pytest.mark.parametrize(
    ("policy", "status"),
    [("allkeys-lru", WARN), ("allkeys-random", WARN), ("volatile-lru", OK), ("noeviction", OK)],
)
def test_a_policy_that_drops_queues_is_found(
    settings: Valkey, policy: str, status: FindingStatus
) -> None:
    settings.client.config_set("maxmemory", "1gb")
    settings.client.config_set("maxmemory-policy", policy)

    finding = look(settings, "eviction")

    assert finding.status is status
    assert f"maxmemory-policy is {policy}" in finding.sentence
    assert "of 1024 MiB" in finding.sentence


def test_a_broker_that_is_nearly_full_is_found(settings: Valkey) -> None:
    used = int(settings.client.info("memory")["used_memory"])
    settings.client.config_set("maxmemory", used + used // 50)

    finding = look(settings, "eviction")

    assert finding.status is WARN
    assert "nearly full" in finding.sentence
    assert "Raise maxmemory" in finding.todo


def test_a_broker_that_hides_its_state_is_not_called_bad(settings: Valkey) -> None:
    """Managed brokers forbid INFO."""
    client = settings.client
    client.execute_command("ACL", "SETUSER", "plain", "on", ">pass", "~*", "&*", "+@all", "-info")
    try:
        app = build_app(settings.url.replace("//", "//plain:pass@"), timeout_s=1.0)
        found = {f.name: f for f in run_checks(broker_checks(app, timeout_s=1.0)[:5])}
    finally:
        client.execute_command("ACL", "DELUSER", "plain")

    for name in ("persistence", "eviction"):
        assert (found[name].status, found[name].sentence) == (OK, "the broker does not say")


def test_queues_without_a_worker_are_found(valkey: Valkey) -> None:
    finding = look(valkey, "consumers")

    assert finding.status is WARN
    assert finding.sentence == "no Celery worker answered within 1 s"
