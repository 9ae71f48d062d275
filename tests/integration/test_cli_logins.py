"""The command line under logins that may not do everything: what is refused names a login that may."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.broker import checks
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, OPERATOR, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.cli import run
from callgate.client import Client
from callgate.settings import ClientSettings
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import ORG, LedgerUnderTest
from tests.support.logins import a_client, a_login, name_of

Shell = Callable[..., tuple[int, str, str]]
AUDIT, PURGE, DEAD_LETTERS = (
    ("audit",),
    ("retention", "purge", "--older-than-days", "0", "--yes"),
    ("dead-letters", "list"),
)
SETTLE = ("unknown", "settle", str(UUID(int=7)), "--unbilled", "--reason", "invoice 7")
OPEN = (
    "breakers",
    "open",
    "--provider",
    "openai",
    "--model",
    "gpt-4o",
    "--reason",
    "they are down",
)
OWNER = "the login that owns the tables"
PAUSE = ("pause", "--provider", "openai", "--reason", "they leak")
FREEZE = ("freeze", ORG, "--reason", "unpaid")
SET_BUDGET = ("budgets", "set", ORG, "--daily-usd", "1")


@pytest.fixture
def shell(services: DevServers, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs a command line under a login: its exit code, stdout, stderr."""

    def call(url: str, *arguments: str) -> tuple[int, str, str]:
        settings = ClientSettings(database_url=url, broker_url=services.broker_url)
        code = run(arguments, lambda: Client(settings))
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("role", "command", "remedy"),
    [
        (CLIENT, AUDIT, f"{OWNER}, or a member of {DASHBOARD}"),
        (CLIENT, PURGE, f"{OWNER}, or a member of {WORKER}"),
        (CLIENT, (*PURGE, "--org", ORG), OWNER),
        (CLIENT, ("tenants", "list"), OWNER),
        (CLIENT, SET_BUDGET, f"{OWNER}, or a member of {OPERATOR}"),
        (CLIENT, ("unknown", "list"), f"{OWNER}, or a member of {DASHBOARD}"),
        (CLIENT, ("breakers", "list"), f"{OWNER}, or a member of {DASHBOARD}"),
        *(
            (role, command, f"{OWNER}, or a member of {OPERATOR}")
            for role in (CLIENT, DASHBOARD)
            for command in (PAUSE, FREEZE, ("resume", *PAUSE[1:]), ("unfreeze", *FREEZE[1:]))
        ),
        (CLIENT, ("pauses",), f"{OWNER}, or a member of {DASHBOARD}"),
        (DASHBOARD, SETTLE, f"{OWNER}, or a member of {OPERATOR}"),
        (DASHBOARD, OPEN, f"{OWNER}, or a member of {OPERATOR}"),
        (DASHBOARD, DEAD_LETTERS, f"{OWNER}, or a member of {CLIENT} or {WORKER}"),
        (WORKER, (*PURGE, "--org", ORG), OWNER),
    ],
)
def test_a_refusal_is_one_line_that_names_who_may(
    ledger: LedgerUnderTest, services: DevServers, shell: Shell,
    role: str, command: tuple[str, ...], remedy: str,
) -> None:  # fmt: skip
    """And nothing was done."""
    key = ledger.dead().key
    with a_login(services.database_url, role) as url:
        code, out, err = shell(url, *command)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(f"; CALLGATE_DATABASE_URL must name {remedy}\n")
    assert not ledger.view(key).is_purged


def test_a_login_does_what_it_may(
    ledger: LedgerUnderTest, services: DevServers, shell: Shell
) -> None:
    """A dashboard audits; a client sees its dead calls, and that it may not see unprocessable messages."""
    ledger.dead()
    owner = PostgresSession(services.database_url)
    with a_login(services.database_url, DASHBOARD) as url:
        looks = (
            ("unknown", "list"),
            ("unknown", "summary"),
            ("breakers", "list"),
            ("pauses",),
            ("actions", "list"),
        )
        for command in (AUDIT, ("costs",), ("budgets", "show")):
            assert shell(url, *command)[0::2] == (0, "")
        assert [shell(url, *command)[0] for command in looks] == [0] * len(looks)
    with closing(owner), a_client(owner, ORG) as url:
        code, out, err = shell(url, *DEAD_LETTERS)

    assert (code, ORG in out) == (0, True)
    assert err.startswith("without unprocessable messages: ")


def test_the_doctor_tells_of_servers_that_log_or_are_too_old(
    services: DevServers, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that would hold prompts is a warning, with what to set; a broker without BLMPOP fails."""
    owner = create_engine(services.database_url, poolclass=NullPool)
    with a_login(services.database_url, CLIENT) as url:
        healthy = shell(url, "doctor")
        with owner.begin() as connection:
            connection.execute(text(f"ALTER ROLE {name_of(url)} SET log_statement = 'all'"))
        loud = shell(url, "doctor")
        monkeypatch.setattr(checks, "redis_version", lambda _: [6, 2, 14])
        old = shell(url, "doctor")

    assert (healthy[0], loud[0]) == (0, 0), (healthy, loud)
    assert "OK   unknown bills: this login may not see them\n" in healthy[1]
    assert "OK   server log: " in healthy[1]
    assert "OK   locks: " in healthy[1]
    assert "OK   broker: " in healthy[1]
    assert "WARN server log: " in loud[1]
    assert "-> Set log_statement = none (it is all).\n" in loud[1]
    assert old[0] == 1, old
    assert "is Redis 6: workers take messages with BLMPOP" in old[1]


def test_the_doctor_tells_who_should_be_let_end_sessions(
    services: DevServers, shell: Shell
) -> None:
    """Where the owner of the ledger may end none, a client can take all locks."""
    owner = create_engine(services.database_url, poolclass=NullPool)
    function = "FUNCTION callgate_end_lock_hoarders_v1()"
    with a_login(services.database_url) as plain, a_login(services.database_url, CLIENT) as url:
        try:
            with owner.begin() as connection:
                connection.execute(text(f"ALTER {function} OWNER TO {name_of(plain)}"))
            code, out, _ = shell(url, "doctor")
        finally:
            with owner.begin() as connection:
                connection.execute(text(f"ALTER {function} OWNER TO callgate"))

    assert code == 0, out
    assert "WARN locks: " in out
    assert f"-> Run as a superuser: GRANT pg_signal_backend TO {name_of(plain)};\n" in out


def test_the_owner_settles_by_hand(
    ledger: LedgerUnderTest, services: DevServers, shell: Shell, tmp_path: Path
) -> None:
    """As operators do it: list, file, settle, audit."""
    refs = [ledger.lost(page) for page in ("one", "two")]
    (file := tmp_path / "bills.csv").write_text(
        "attempt_id,billed_usd\n" + "".join(f"{ref.attempt_id},0.00000002\n" for ref in refs)
    )
    url = services.database_url

    listed = json.loads(shell(url, "unknown", "list", "--json")[1])
    code, out, _ = shell(
        url, "unknown", "settle", "--csv", str(file), "--reason", "invoice 7", "--operator", "ann"
    )

    assert {bill["attempt_id"] for bill in listed} == {str(ref.attempt_id) for ref in refs}
    assert (code, out.count(" settled ")) == (0, 2)
    assert shell(url, "unknown", "list")[1] == ""
    assert ledger.figures() == (0, 40)
    assert shell(url, *AUDIT)[0] == 0
    actions = json.loads(shell(url, "actions", "list", "--json")[1])
    assert [a["operator"] for a in actions if a["action"] == "unknown.settle"] == ["ann", "ann"]
