"""What must hold between the worker's settings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.services.retrying_ledger import OutagePolicy
from callgate.settings import KUBERNETES_SERVICE, PREFIX, RENAMED, ClientSettings, load_settings
from config.settings import WorkerOptions, WorkerSettings, check_relations
from tests.support.service_world import OVERLAY, POLICY
from worker.parts import outage_policy_of

TIMEOUT_S = ClientSettings.model_fields["ledger_timeout_s"].default
VARIABLE = "CALLGATE_WORKER__CREDENTIALS__"


def check(**options: Any) -> None:
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


def test_a_lease_longer_than_an_attempt_is_refused() -> None:
    """As long as deadline and grace together, it would notice a death no sooner than they do."""
    grace_s = 5 * POLICY.deadline_s
    check(process_lease_s=6 * POLICY.deadline_s - 1, attempt_grace_s=grace_s)

    with pytest.raises(ConfigurationError, match="no sooner than without leases"):
        check(process_lease_s=6 * POLICY.deadline_s, attempt_grace_s=grace_s)


def test_a_record_must_fit_into_the_grace() -> None:
    """The one try and the back-off before it, or the end of an outage makes attempts unknown."""
    check(process_lease_s=1, attempt_grace_s=TIMEOUT_S * 3 / 2 + 0.1)

    with pytest.raises(ConfigurationError, match="a third of itself"):
        check(process_lease_s=1, attempt_grace_s=TIMEOUT_S * 3 / 2)


def test_the_longest_back_off_is_the_third_that_the_grace_is_checked_for() -> None:
    """Else the check above means nothing."""
    assert OutagePolicy(grace_s=30).backoff_s(failures=100, jitter=1.0) == 10


def test_a_quarantined_process_gives_up_on_the_ledger_within_the_grace() -> None:
    """It waits twice, to read and for its lease; killed as stuck, it would count a loss against a call nobody sent."""
    options = WorkerOptions()

    assert 2 * outage_policy_of(options, is_alone=True).give_up_after_s < options.attempt_grace_s
    assert outage_policy_of(options, is_alone=False) == OutagePolicy(
        grace_s=options.attempt_grace_s
    )


def test_an_outage_that_no_lease_notices_leaves_time_to_record() -> None:
    """Half a lease without a renewal is in order, so an attempt may be called lost right behind it."""
    check(process_lease_s=12, attempt_grace_s=TIMEOUT_S + 6.1)

    with pytest.raises(ConfigurationError, match="half of CALLGATE_WORKER__PROCESS_LEASE_S"):
        check(process_lease_s=12, attempt_grace_s=TIMEOUT_S + 6)


def test_a_drain_outlasts_the_longest_call() -> None:
    """Else stopping a worker makes outcomes unknown."""
    check(shutdown_timeout_s=POLICY.deadline_s + 1)

    with pytest.raises(ConfigurationError, match="CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S"):
        check(shutdown_timeout_s=POLICY.deadline_s)


def api_keys(*providers: str) -> dict[str, str]:
    """The keys of this environment for a catalogue with these providers."""
    settings = load_settings(
        WorkerSettings, database_url="postgresql://h/n", broker_url="redis://h"
    )
    return {name: key.get_secret_value() for name, key in settings.api_keys(providers).items()}


def test_a_variable_names_a_provider_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the catalogue writes it is how its key is looked for; an organisation is another one in another case."""
    monkeypatch.setenv(VARIABLE + "AZUREEU", "azure")
    monkeypatch.setenv(VARIABLE + "OPENAI.Acme.Corp", "acme")
    monkeypatch.setenv("OPENAI_API_KEY", "open")

    keys = api_keys("AzureEU", "openai")

    assert keys == {"AzureEU": "azure", "openai.Acme.Corp": "acme", "openai": "open"}


def test_openais_own_variable_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key given to callgate is more specific."""
    monkeypatch.setenv(VARIABLE + "OPENAI", "ours")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")

    assert api_keys("openai") == {"openai": "ours"}


@pytest.mark.parametrize(
    ("variables", "providers", "complaint"),
    [
        (["OPENAPI"], ["openai"], r"__OPENAPI is no provider in the catalogue, which has openai"),
        (["OPENAI"], ["OpenAI", "openai"], r"__OPENAI may be any of the providers OpenAI, openai"),
        (["EU.ACME"], ["eu", "EU.acme"], r"__EU.ACME may be any of the providers eu, EU.acme"),
        (["eu.Acme", "EU.acme"], ["eu"], r"differ by case only: put the key into a file"),
    ],
)
def test_a_key_that_could_be_anybodys_stops_the_worker(
    monkeypatch: pytest.MonkeyPatch, variables: list[str], providers: list[str], complaint: str
) -> None:
    """A key that is sent to another provider, or for another organisation, is lost."""
    for name in variables:
        monkeypatch.setenv(VARIABLE + name, "key")

    with pytest.raises(ConfigurationError, match=complaint):
        api_keys(*providers)


SERVICE = {
    "SERVICE_HOST": "10.0.0.1",
    "SERVICE_PORT": "5555",
    "SERVICE_PORT_HTTP": "5555",
    "PORT": "tcp://10.0.0.1:5555",
    "PORT_5555_TCP": "tcp://10.0.0.1:5555",
    "PORT_5555_TCP_ADDR": "10.0.0.1",
    "PORT_5555_TCP_PORT": "5555",
    "PORT_5555_TCP_PROTO": "tcp",
}
"""What Kubernetes sets for a Service. Source: kubernetes.io, "Service", "Environment variables"."""


def settings_here() -> WorkerSettings:
    """The settings of this environment."""
    return load_settings(WorkerSettings, database_url="postgresql://h/n", broker_url="redis://h")


def test_services_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called callgate-flower must not stop every pod beside it, nor change what they do."""
    for service in ("CALLGATE_", "CALLGATE_FLOWER_", "CALLGATE_WORKER_", "CALLGATE_BROKER_"):
        for name, value in SERVICE.items():
            monkeypatch.setenv(service + name, value)

    assert settings_here().worker.flower_port == 5555


@pytest.mark.parametrize("name", ["CALLGATE_FLOWER_PORT", "CALLGATE_WORKER__FLOWR_PORT"])
def test_a_misspelt_port_is_not_taken_for_a_service(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It would silently be the default."""
    monkeypatch.setenv(name, "8080")

    with pytest.raises(ConfigurationError, match=r"did you mean CALLGATE_WORKER__FLOWER_PORT\?"):
        settings_here()


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_setting_is_refused_with_its_new_name(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    """An ignored setting would silently be a default."""
    monkeypatch.setenv(old, "9")

    with pytest.raises(ConfigurationError, match=rf"^{old}: renamed, use {new}$"):
        settings_here()

    monkeypatch.delenv(old)
    monkeypatch.setenv(new, str(2**20) if new.endswith("_BYTES") else "9")
    assert settings_here()


def test_a_client_ignores_renamed_settings_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores every setting of a worker."""
    monkeypatch.setenv("CALLGATE_WORKER__LEASE_S", "9")

    assert load_settings(ClientSettings, database_url="postgresql://h/n", broker_url="redis://h")


def test_no_setting_has_a_name_that_kubernetes_sets() -> None:
    """Else a Service of that name would set it."""
    for name in WorkerSettings.model_fields:
        for value in SERVICE.values():
            assert not KUBERNETES_SERVICE.match(f"{PREFIX}{name.upper()}={value}")


SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.mark.parametrize("url", ["ftp://host/x", "host/x", "http://user:p/ss@host/x"])
def test_a_webhook_is_a_url_of_http(url: str) -> None:
    with pytest.raises(ValueError, match="must be a URL of http or https") as raised:
        WorkerOptions(alert_webhook_url=SecretStr(url))

    assert url not in str(raised.value)


def test_a_webhook_needs_a_secret() -> None:
    url = SecretStr("https://host/alerts")
    with pytest.raises(ConfigurationError, match="needs CALLGATE_WORKER__ALERT_WEBHOOK_SECRET"):
        check(alert_webhook_url=url)

    check(alert_webhook_url=url, alert_webhook_secret=SecretStr(SECRET))
    with pytest.raises(ValueError, match="must be whsec_") as raised:
        WorkerOptions(alert_webhook_secret=SecretStr(SECRET + "?"))
    assert SECRET not in str(raised.value)


def test_while_a_secret_changes_there_are_two_keys() -> None:
    old = SECRET[:-4] + "bGQh"
    options = WorkerOptions(
        alert_webhook_secret=SecretStr(SECRET), alert_webhook_old_secret=SecretStr(old)
    )
    assert len(set(options.alert_webhook_keys)) == 2
    assert WorkerOptions(alert_webhook_secret=SecretStr(SECRET)).alert_webhook_keys == (
        options.alert_webhook_keys[0],
    )
