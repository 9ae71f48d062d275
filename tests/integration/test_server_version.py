"""A Postgres that is too old is refused in one line by everything that needs a newer one."""

from __future__ import annotations

from contextlib import closing

import pytest

from callgate.adapters.postgres import version
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD
from callgate.adapters.postgres.version import POSTGRES_MIN, major_version
from callgate.cli import run
from callgate.client import Client
from callgate.domain.errors import ConfigurationError
from callgate.settings import ClientSettings
from config.settings import WorkerSettings
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import LedgerUnderTest
from tests.support.logins import a_login
from worker.app import worker_app
from worker.bootstrap import bootstrap
from worker.migrate import migrate


@pytest.mark.parametrize("number", [90_624, 100_000, 130_011, 159_999])
def test_an_old_server_is_refused(number: int) -> None:
    """By its number, as the server tells it."""
    with pytest.raises(ConfigurationError, match=rf"Postgres {number // 10_000} is too old"):
        major_version(number)


@pytest.mark.parametrize("number", [160_000, 160_004, 180_001])
def test_a_newer_server_is_taken(number: int) -> None:
    """From the first release of 16 on."""
    assert major_version(number) == number // 10_000


def test_migrate_worker_and_doctor_require_the_version(
    services: DevServers,
    ledger: LedgerUnderTest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the same words; a server is too old for a callgate that needs one of the future."""
    monkeypatch.setattr(version, "POSTGRES_MIN", 99)
    urls = {"database_url": services.database_url, "broker_url": services.broker_url}
    too_old = r"^Postgres \d\d is too old: callgate needs 99 or later$"

    with pytest.raises(ConfigurationError, match=too_old):
        migrate(services.database_url)
    settings = WorkerSettings(**urls)  # type: ignore[arg-type]
    with (
        closing(bootstrap(settings, worker_app(settings))) as worker,
        pytest.raises(ConfigurationError, match=too_old),
    ):
        worker.check()
    assert run(["doctor"], lambda: Client(ClientSettings(**urls))) == 1  # type: ignore[arg-type]
    assert "FAIL database: Postgres" in capsys.readouterr().out
    assert POSTGRES_MIN == 16


@pytest.mark.parametrize(
    ("roles", "code", "says"),
    [
        ((DASHBOARD,), 0, "OK   schema: migrated; this login reads costs and states"),
        ((CLIENT,), 0, "OK   schema: migrated\n"),
        ((DASHBOARD, CLIENT), 0, "OK   schema: migrated\n"),
        ((), 1, "FAIL schema: Postgres refused"),
    ],
)
def test_the_doctor_tells_the_truth_under_every_login(
    services: DevServers,
    ledger: LedgerUnderTest,
    capsys: pytest.CaptureFixture[str],
    roles: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """A dashboard may not read calls, and nothing is amiss with it; a login without a role can do nothing."""
    with a_login(services.database_url, *roles) as url:
        settings = ClientSettings(database_url=url, broker_url=services.broker_url)  # type: ignore[arg-type]
        ended = run(["doctor"], lambda: Client(settings))

    out = capsys.readouterr().out
    assert ended == code, out
    assert says in out
