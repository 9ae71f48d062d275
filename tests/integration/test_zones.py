"""Which days a budget has is for Postgres to say: its zones, its clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.domain.budgets import ORG_SCOPE, Window, period_of
from callgate.domain.errors import UnknownTimeZone
from tests.integration.conftest import Command
from tests.support.ledger_under_test import LedgerUnderTest

MIDNIGHTS = {
    "America/Havana": "2024-11-03T05:00Z",  # 00:00 comes twice
    "Africa/Cairo": "2024-04-25T22:00Z",  # 00:00 never comes
    "Asia/Beirut": "2024-03-30T22:00Z",
    "America/Sao_Paulo": "2018-11-04T03:00Z",
    "America/Asuncion": "2023-10-01T04:00Z",
    "Australia/Lord_Howe": "2024-04-06T15:00Z",  # by half an hour
    "Europe/Berlin": "2026-10-25T01:00Z",
    "Pacific/Apia": "2011-12-30T10:00Z",  # a day was left out
}
PERIODS = """SELECT (callgate_period_v1(%(window)s, %(zone)s, at)).* FROM unnest(%(moments)s::timestamptz[]) AS at"""


@pytest.mark.parametrize("zone", MIDNIGHTS)
@pytest.mark.parametrize("window", Window)
def test_the_memory_ledger_cuts_days_as_postgres_does(
    ledger: LedgerUnderTest, zone: str, window: Window
) -> None:
    """Also where midnight comes twice, or never."""
    middle = datetime.fromisoformat(MIDNIGHTS[zone])
    moments = [middle + timedelta(minutes=30 * n) for n in range(-96, 96)]
    session = ledger.ledger._session  # type: ignore[attr-defined]

    rows = session.rows(PERIODS, {"window": window.value, "zone": zone, "moments": moments})

    assert [tuple(row) for row in rows] == [period_of(at, window, zone) for at in moments]


def test_a_zone_that_python_alone_knows_is_refused(
    ledger: LedgerUnderTest, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """`localtime` is a file on many machines, and a day of another length on each."""
    with pytest.raises(UnknownTimeZone):
        ledger.operations.set_budget("ours", ORG_SCOPE, Window.DAY, 1, "localtime")

    assert command("budgets", "set", "ours", "--daily-usd", "1", "--timezone", "localtime") == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown_time_zone: 'localtime' is no time zone")


def test_the_command_mends_what_lost_its_zone(
    ledger: LedgerUnderTest, postgres_engine: Engine, command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Day and month at once, without their limits being said again; a limit alone names the way out."""
    ledger.operations.set_budget("acme", ORG_SCOPE, Window.MONTH, 5)
    with postgres_engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE budget SET timezone = 'Gone/Zone', starts_at = starts_at - interval '90 days',"
                " ends_at = ends_at - interval '90 days'"
            )
        )
    assert command("budgets", "set", "acme", "--daily-usd", "1") == 1
    assert "Gone/Zone" in capsys.readouterr().err
    before = {b.window: b.limit_nano_usd for b in ledger.operations.budgets("acme")}

    assert command("budgets", "set", "acme", "--timezone", "UTC") == 0

    budgets = PostgresOperations.budgets(ledger.operations, "acme")  # type: ignore[arg-type]
    assert {b.window: b.limit_nano_usd for b in budgets} == before
    for budget in budgets:
        assert budget.starts_at <= datetime.now(UTC) < budget.ends_at
        assert budget.starts_at.astimezone(ZoneInfo("UTC")).hour == 0
