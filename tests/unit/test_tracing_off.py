"""Tracing is off by default, and then nothing of it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from callgate.domain.errors import ConfigurationError
from callgate.services.tracing import NO_TRACING
from callgate.settings import ClientSettings
from callgate.tracing import tracing_of

CHECKOUT = Path(__file__).parents[2]
COMPOSE = """
import sys
sys.modules["opentelemetry"] = None  # its import fails, as if it were not installed
from pydantic import SecretStr
from callgate.client import Client
from callgate.settings import ClientSettings
from callgate.domain.catalogue import Catalogue, ProviderEntry
from config.settings import WorkerOptions, WorkerSettings
from worker.app import worker_app
from worker.bootstrap import bootstrap

urls = dict(database_url=SecretStr("postgresql://u@127.0.0.1:1/d"), broker_url=SecretStr("redis://127.0.0.1:1"))
Client(ClientSettings(**urls))
settings = WorkerSettings(**urls, worker=WorkerOptions(status_port=0, shutdown_timeout_s=3_600))
catalogue = Catalogue(providers={"local": ProviderEntry(needs_key=False, base_url="http://127.0.0.1:1/v1")})
bootstrap(settings, worker_app(settings), catalogue=catalogue, quarantine_argv=None)
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.", "callgate.adapters.tracing"))))
"""


def settings(**fields: object) -> ClientSettings:
    """A client's settings."""
    urls = {"database_url": "postgresql://u@h/d", "broker_url": "redis://h"}
    return ClientSettings.model_validate({**urls, **fields})


def test_a_client_and_a_worker_import_nothing_of_opentelemetry() -> None:
    """Anthropic's SDK does, and redis-py if it is installed. This catalogue has no provider of Anthropic's protocol."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", COMPOSE],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


def test_it_is_off_by_default() -> None:
    assert tracing_of(settings()) is NO_TRACING


def test_it_makes_no_object_while_it_is_off() -> None:
    assert NO_TRACING.call() is NO_TRACING.call()
    assert NO_TRACING.submission([]) is NO_TRACING.submission([])
    assert NO_TRACING.settlement([]) is NO_TRACING.settlement([])
    assert not NO_TRACING.is_on


def test_without_opentelemetry_the_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("callgate.adapters.tracing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'callgate\[tracing\]'"):
        tracing_of(settings(tracing=True))
