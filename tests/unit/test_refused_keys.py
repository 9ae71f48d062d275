"""A worker none of whose keys can be used is not ready, and says which provider refuses which."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from callgate.domain import metrics
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.metric_ports import Figure, LedgerFigures
from config.settings import WorkerOptions, WorkerSettings
from worker.health import Fault
from worker.main import say_missing_keys
from worker.status import credentials_look, refused_keys

NOW = datetime(2026, 11, 30, tzinfo=UTC)
KEYS = {"openai": SecretStr("k"), "groq": SecretStr("k")}


def opened(
    provider: str, reason: str, *, key: str = "provider", calls_of: str = "all"
) -> LedgerFigures:
    """Figures with one open breaker."""
    labels = (provider, "m", key, calls_of, reason)
    return LedgerFigures(NOW, 1.0, (Figure(metrics.OPEN_BREAKERS.name, labels, 1.0),))


def settings_of(keys: dict[str, Any]) -> WorkerSettings:
    """The settings of a worker with these keys."""
    return WorkerSettings(
        database_url=SecretStr("postgresql://u@h/d"),
        broker_url=SecretStr("redis://h"),
        worker=WorkerOptions(credentials=keys),
    )


def looked(
    refused: dict[str, str], *, keys: dict[str, Any], **entries: ProviderEntry
) -> Fault | None:
    """What a worker with these keys finds."""
    settings = settings_of(keys)
    providers = entries or {"openai": ProviderEntry(), "groq": ProviderEntry()}
    return credentials_look(
        settings, Catalogue(providers=providers), lambda: True, lambda: refused
    )()


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        (None, {}),
        (opened("openai", "authentication_failed"), {"openai": "authentication_failed"}),
        (opened("openai", "insufficient_quota"), {"openai": "insufficient_quota"}),
        (opened("openai", "permission_denied"), {}),
        (opened("openai", "server_error"), {}),
        (opened("openai", "operator"), {}),
        (opened("openai", "authentication_failed", key="organisation"), {}),
        (opened("openai", "authentication_failed", calls_of="organisation"), {}),
    ],
)
def test_the_figures_say_which_providers_refuse_their_key(
    figures: LedgerFigures | None, found: dict[str, str]
) -> None:
    assert refused_keys(figures) == found


def test_a_worker_without_a_key_says_so_at_start_in_one_line() -> None:
    """Else the first failed call would, minutes later. A worker that can send something says nothing."""
    with capture_logs() as lines:
        say_missing_keys(settings_of({}), Catalogue())
        say_missing_keys(settings_of({"openai": SecretStr("k")}), Catalogue())
        keyless = {"local": ProviderEntry(base_url="http://h", needs_key=False)}
        say_missing_keys(settings_of({}), Catalogue(providers=keyless))

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("keys.not_found", "error")
    assert line["reason"].startswith("no provider has an API key")
    assert "CALLGATE_WORKER__CREDENTIALS_DIR" in line["todo"]


def test_a_worker_with_one_good_key_is_ready() -> None:
    assert looked({"openai": "authentication_failed"}, keys=KEYS) is None


def test_a_worker_whose_keys_are_all_refused_is_not_ready() -> None:
    refused = dict.fromkeys(("openai", "groq"), "authentication_failed")
    fault = looked(refused, keys=KEYS)
    assert fault is not None
    assert fault.check == "credentials"
    assert fault.reason == (
        "every API key is refused: groq (authentication_failed), openai (authentication_failed)"
    )


def test_a_provider_without_a_key_does_not_help() -> None:
    fault = looked({"openai": "authentication_failed"}, keys={"openai": SecretStr("k")})
    assert fault is not None


def test_the_key_of_an_organisation_may_be_good() -> None:
    keys = {"openai": SecretStr("k"), "openai.acme": SecretStr("k")}
    assert looked({"openai": "authentication_failed"}, keys=keys) is None


def test_a_provider_that_needs_no_key_can_be_used() -> None:
    entries = {"openai": ProviderEntry(), "local": ProviderEntry(needs_key=False)}
    keys = {"openai": SecretStr("k")}
    assert looked({"openai": "authentication_failed"}, keys=keys, **entries) is None
