"""Whatever Postgres answers, callgate's own errors are all that anybody hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import errorcodes

from callgate.adapters.postgres.budget_reports import PostgresBudgetReports
from callgate.adapters.postgres.call_search import PostgresCallSearch
from callgate.adapters.postgres.cost_series import PostgresCostSeries
from callgate.adapters.postgres.dead_letters import PostgresEndedCalls
from callgate.adapters.postgres.fingerprints import PostgresFingerprints
from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.lock_watch import PostgresLockWatch
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.overview import PostgresOverview
from callgate.adapters.postgres.redrives import PostgresRedrives
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import KeptTransaction, PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.adapters.postgres.worker_lines import PostgresWorkers
from callgate.domain.budget_states import BudgetName
from callgate.domain.budgets import Window
from callgate.domain.call_pages import PageOf
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.cost_series import Grid, Step
from callgate.domain.delivery import LinkOutcome
from callgate.domain.errors import CallgateError, LedgerUnavailable
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.ledger import Reaper
from callgate.domain.overview import ActionFilter
from callgate.domain.pauses import PauseKey
from callgate.domain.redrives import (
    NewRedrive,
    PricedCall,
    RedriveState,
    RedriveStep,
    RedriveTerms,
    StartRedrive,
)
from callgate.domain.reports import By, CallFilter, EndReason, UnprocessableMessage
from callgate.domain.retention import BodyAges
from callgate.domain.sums import CostFilter
from callgate.domain.tenants import Tenant
from callgate.domain.unknown import SettleByHand, UnknownFilter
from devkit.servers.embedded import DevServers
from tests.integration.conftest import Command
from tests.support.ledger_under_test import a_loss, a_reserve, a_submission, an_answer
from worker.migrate import migrate

pytestmark = pytest.mark.long
AT = datetime(2026, 11, 1, tzinfo=UTC)
KEY = CallKey(uuid4(), 1)
REF = AttemptRef(KEY, uuid4())
BY = By("a test", "to see")
NAME = BudgetName("a", "org", Window.DAY)
NO_ERRORS = ("00", "01", "02")
"""Success, warnings, no data: nothing of it is raised."""
SQLSTATES = sorted(
    code
    for name, code in vars(errorcodes).items()
    if name.isupper() and isinstance(code, str) and len(code) == 5 and code[:2] not in NO_ERRORS
)
CLASSES = sorted({code[:2]: code for code in reversed(SQLSTATES)}.values())
"""One of each class."""

OF_EACH_MEANING = ("08006", "22023", "25006", "28000", "40001", "42501", "42P01", "53300", "ZZ999")
"""Those that are told apart, and some that are not."""

Ask = Callable[[PostgresSession], Any]
METHODS: dict[str, Ask] = {
    "submit": lambda s: PostgresLedger(s).submit([a_submission()]),
    "read": lambda s: list(PostgresLedger(s).read([KEY])),
    "reserve": lambda s: PostgresLedger(s).reserve([a_reserve(KEY)]),
    "record": lambda s: PostgresLedger(s).record([an_answer(REF)]),
    "settle": lambda s: PostgresLedger(s).settle([a_loss(REF)]),
    "take_due": lambda s: PostgresLedger(s).take_due(limit=1, reaper=Reaper("a:1:b", 1.0)),
    "take_lost_messages": lambda s: PostgresLedger(s).take_lost_messages(limit=1, queued_before=AT),
    "links": lambda s: PostgresLedger(s).links(limit=1),
    "keep_link_outcomes": lambda s: PostgresLedger(s).keep_link_outcomes([LinkOutcome(uuid4())]),
    "renew": lambda s: PostgresLeases(s).renew("a:1:b", 1.0),
    "release": lambda s: PostgresLeases(s).release("a:1:b"),
    "expire": lambda s: PostgresLeases(s).expire("a:1:b"),
    "set_budget": lambda s: PostgresOperations(s).set_budget("a", "org", Window.DAY, 1),
    "budgets": lambda s: PostgresOperations(s).budgets("a"),
    "change_limit": lambda s: PostgresOperations(s).change_limit(NAME, 1, seen_nano_usd=1, by=BY),
    "remove_budget": lambda s: PostgresOperations(s).remove_budget(NAME, seen_nano_usd=1, by=BY),
    "fullest_budgets": lambda s: PostgresOperations(s).fullest_budgets(limit=1),
    "budgets_by_name": lambda s: PostgresOperations(s).budgets_by_name(limit=1),
    "budget_state": lambda s: PostgresOperations(s).budget_state(NAME),
    "budget_periods": lambda s: PostgresOperations(s).budget_periods(NAME, limit=1),
    "spent_by_quarter": lambda s: PostgresOperations(s).spent_by_quarter(NAME, datetime.now(UTC)),
    "money_waiters": lambda s: PostgresOperations(s).money_waiters("a", limit=1),
    "affected": lambda s: PostgresOperations(s).affected(PauseKey()),
    "unknown_page": lambda s: PostgresOperations(s).unknown_page(UnknownFilter(), limit=1),
    "unknown_sums": lambda s: PostgresOperations(s).unknown_sums(UnknownFilter(), attempts_max=1),
    "calls": lambda s: PostgresOperations(s).calls(CallFilter(), limit=1),
    "call_page": lambda s: PostgresOperations(s).call_page(CallFilter(), PageOf()),
    "views": lambda s: PostgresOperations(s).views([KEY]),
    "call_ids": lambda s: PostgresOperations(s).call_ids(uuid4(), uuid4(), limit=1),
    "count_calls": lambda s: PostgresOperations(s).count_calls(CallFilter()),
    "call_chart": lambda s: PostgresOperations(s).call_chart(CallFilter(), datetime.now(UTC)),
    "call_history": lambda s: PostgresOperations(s).call_history(KEY),
    "cancel": lambda s: PostgresOperations(s).cancel(KEY, by=BY),
    "show_body": lambda s: PostgresOperations(s).show_body(KEY, None, by=BY),
    "dead_groups": lambda s: PostgresOperations(s).dead_groups(CallFilter()),
    "unprocessable_messages": lambda s: PostgresOperations(s).unprocessable_messages(limit=1),
    "end": lambda s: PostgresOperations(s).end([KEY], code=EndReason.CANCELLED, message="a"),
    "link_failures": lambda s: PostgresOperations(s).link_failures(KEY, limit=1),
    "keep_unprocessable": lambda s: PostgresOperations(s).keep_unprocessable(
        UnprocessableMessage("a", "b", b"c")
    ),
    "snapshot": lambda s: PostgresOperations(s).snapshot(),
    "breakers": lambda s: PostgresOperations(s).breakers(),
    "set_breaker": lambda s: PostgresOperations(s).set_breaker("a", "b", "", is_open=True, by=BY),
    "limits": lambda s: PostgresOperations(s).limits(),
    "recent_ends": lambda s: PostgresOperations(s).recent_ends(orgs_max=1, calls_max=1, age_s=1.0),
    "ahead": lambda s: PostgresOperations(s).ahead(KEY),
    "limit_publishers": lambda s: PostgresOperations(s).limit_publishers(),
    "concurrency": lambda s: PostgresOperations(s).concurrency(),
    "pauses": lambda s: PostgresOperations(s).pauses(),
    "pause": lambda s: PostgresOperations(s).pause(PauseKey(), by=BY),
    "resume": lambda s: PostgresOperations(s).resume(PauseKey(), by=BY),
    "unknown_bills": lambda s: PostgresOperations(s).unknown_bills(UnknownFilter(), limit=1),
    "unknown_days": lambda s: PostgresOperations(s).unknown_days(UnknownFilter()),
    "bills": lambda s: PostgresOperations(s).bills([uuid4()]),
    "settle_by_hand": lambda s: PostgresOperations(s).settle_by_hand(
        [SettleByHand(uuid4(), 1, 1)], by=BY
    ),
    "spending": lambda s: PostgresOperations(s).spending(["a"], days=1, attempts_max=1),
    "actions": lambda s: PostgresOperations(s).actions(limit=1),
    "purge": lambda s: PostgresRetention(s).purge(BodyAges(1.0), limit=1),
    "old_dead_letters": lambda s: PostgresRetention(s).old_dead_letters(BodyAges(1.0), limit=1),
    "calls_with_bodies": lambda s: PostgresRetention(s).calls_with_bodies("a"),
    "old_calls_with_bodies": lambda s: PostgresRetention(s).old_calls_with_bodies("a", 1.0),
    "make_partitions": lambda s: PostgresRetention(s).make_partitions(months=1),
    "forget_breakers": lambda s: PostgresRetention(s).forget_breakers(limit=1),
    "archive_month": lambda s: PostgresRetention(s).archive_month(12),
    "publish": lambda s: PostgresFingerprints(s).publish("a:1:b", Fingerprint("1", "2", "3", "4")),
    "workers": lambda s: PostgresFingerprints(s).workers(),
    "expired": lambda s: PostgresFingerprints(s).expired(),
    "end_groups": lambda s: PostgresEndedCalls(s).end_groups(CallFilter()),
    "ended_calls": lambda s: PostgresEndedCalls(s).ended_calls(CallFilter(), limit=1),
    "discard": lambda s: PostgresEndedCalls(s).discard([KEY], by=BY),
    "failing_links": lambda s: PostgresEndedCalls(s).failing_links(limit=1),
    "given_up_links": lambda s: PostgresEndedCalls(s).given_up_links(limit=1),
    "retry_links": lambda s: PostgresEndedCalls(s).retry_links([uuid4()], by=BY),
    "unprocessable_lines": lambda s: PostgresEndedCalls(s).unprocessable_lines(limit=1),
    "cost_lines": lambda s: PostgresCostSeries(s).cost_lines(CostFilter(), ["org_id"], limit=1),
    "cost_series": lambda s: PostgresCostSeries(s).cost_series(
        CostFilter(since=AT, until=AT + timedelta(days=1)), Grid(Step.DAY, "UTC"), "org_id"
    ),
    "worker_lines": lambda s: PostgresWorkers(s).worker_lines(),
    "open_lines": lambda s: PostgresWorkers(s).open_lines(),
    "glance": lambda s: PostgresOverview(s).glance(dead_s=1.0, rows_max=1),
    "provider_health": lambda s: PostgresOverview(s).provider_health(age_s=1.0, attempts_max=1),
    "actions_page": lambda s: PostgresOverview(s).actions_page(ActionFilter(), limit=1),
    "note": lambda s: PostgresOverview(s).note(None, by=BY),
    "states": lambda s: PostgresOverview(s).states([KEY]),
    "quarantined": lambda s: PostgresWorkers(s).quarantined(),
    "look": lambda s: PostgresLockWatch(s).look(),
    "close": lambda s: PostgresLockWatch(PostgresSession(s.url)).close(),
    "grant": lambda s: PostgresTenants(s).grant(Tenant("a", "b")),
    "revoke": lambda s: PostgresTenants(s).revoke(Tenant("a", "b")),
    "all": lambda s: PostgresTenants(s).all(),
}
REDRIVE_ID = uuid4()
STEP = RedriveStep(REDRIVE_ID, uuid4(), RedriveState.RUNNING)
OF_REDRIVES: dict[str, Ask] = {
    "plan": lambda s: PostgresRedrives(s).plan(
        NewRedrive(REDRIVE_ID, CallFilter(state=CallState.DEAD), BY)
    ),
    "start": lambda s: PostgresRedrives(s).start(StartRedrive(REDRIVE_ID, 1, BY)),
    "pause": lambda s: PostgresRedrives(s).pause(REDRIVE_ID, BY),
    "resume": lambda s: PostgresRedrives(s).resume(REDRIVE_ID, RedriveTerms(), BY),
    "abort": lambda s: PostgresRedrives(s).abort(REDRIVE_ID, BY),
    "get": lambda s: PostgresRedrives(s).get(REDRIVE_ID),
    "newest": lambda s: PostgresRedrives(s).newest(limit=1),
    "calls_of": lambda s: PostgresRedrives(s).calls_of(REDRIVE_ID, limit=1),
    "orgs_of": lambda s: PostgresRedrives(s).orgs_of(REDRIVE_ID),
    "take": lambda s: PostgresRedrives(s).take(lease_s=1.0),
    "price": lambda s: PostgresRedrives(s).price(STEP, [PricedCall(1, 1)]),
    "release": lambda s: PostgresRedrives(s).release(STEP, [PricedCall(1, refusal="a")]),
    "forget": lambda s: PostgresRedrives(s).forget(age_s=1.0, limit=1),
}
ADAPTERS = (
    *(PostgresLedger, PostgresLeases, PostgresLockWatch, PostgresFingerprints),
    *(PostgresOperations, PostgresBudgetReports, PostgresRetention, PostgresTenants),
    *(PostgresEndedCalls, PostgresCostSeries, PostgresWorkers, PostgresOverview),
    PostgresCallSearch,
)
COMMANDS = (
    ("submit", "--org", "a", "--call-type", "b", "--model", "openai/gpt-4o-mini", "hello"),
    ("calls", "list"),
    ("calls", "show", KEY.task_id),
    ("calls", "cancel", KEY.task_id, "--reason", "a"),
    ("budgets", "set", "a", "--daily-usd", "1", "--timezone", "UTC"),
    ("budgets", "show"),
    ("budgets", "remove", "a", "--reason", "b", "--yes"),
    ("workers", "list"),
    ("dead-letters", "list"),
    ("dead-letters", "show", KEY.task_id),
    ("dead-letters", "summary"),
    ("dead-letters", "redrive", "--reason", "a", "--yes"),
    ("redrives", "list"),
    ("redrives", "show", str(REDRIVE_ID)),
    ("redrives", "start", str(REDRIVE_ID), "--reason", "a", "--yes"),
    ("redrives", "pause", str(REDRIVE_ID), "--reason", "a"),
    ("redrives", "resume", str(REDRIVE_ID), "--reason", "a"),
    ("redrives", "abort", str(REDRIVE_ID), "--reason", "a"),
    ("dead-letters", "discard", "--all", "--reason", "a", "--yes"),
    ("costs",),
    ("audit",),
    ("retention", "purge", "--org", "a", "--yes"),
    ("actions", "list"),
    ("breakers", "list"),
    ("breakers", "open", "--provider", "a", "--model", "b", "--reason", "c"),
    ("pauses",),
    ("pause", "--org", "a", "--reason", "c"),
    ("resume", "--all", "--reason", "c"),
    ("freeze", "a", "--reason", "c"),
    ("unfreeze", "a", "--reason", "c"),
    ("unknown", "list"),
    ("unknown", "summary"),
    ("unknown", "settle", str(uuid4()), "--unbilled", "--reason", "a"),
    ("tenants", "list"),
    ("tenants", "grant", "a", "b"),
    ("tenants", "revoke", "a", "b"),
    ("doctor",),
    ("migrate",),
)


@pytest.fixture(scope="module")
def session(services: DevServers) -> Iterator[PostgresSession]:
    """A session on a real server."""
    with closing(PostgresSession(services.database_url, timeout_s=2, pool_size=1)) as session:
        yield session


def failing(sqlstate: str) -> str:
    """A statement that Postgres answers with this code."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have Postgres answer every statement of every session with a code."""
    rows, kept_rows = PostgresSession.rows, KeptTransaction.rows

    def start(sqlstate: str) -> None:
        statement = failing(sqlstate)
        monkeypatch.setattr(PostgresSession, "rows", lambda s, *_: rows(s, statement, {}))
        monkeypatch.setattr(KeptTransaction, "rows", lambda s, *_: kept_rows(s, statement))
        # Nobody waits for what will not come.
        monkeypatch.setattr("callgate.adapters.postgres.session.TRIES_MAX", 1)
        monkeypatch.setattr("callgate.adapters.broker.consumers.ANSWER_S", 0.1)

    return start


def test_every_class_is_walked() -> None:
    """And every method of every adapter, so that a new one cannot be forgotten."""
    methods = {name for adapter in ADAPTERS for name in _methods(adapter)}

    assert len({code[:2] for code in CLASSES}) > 35
    assert methods == set(METHODS)
    assert _methods(PostgresRedrives) == set(OF_REDRIVES)


def _methods(adapter: type) -> set[str]:
    found = vars(adapter).items()
    return {name for name, method in found if callable(method) and not name.startswith("_")}


@pytest.mark.parametrize("sqlstate", CLASSES)
def test_no_adapter_lets_a_databases_error_out(
    session: PostgresSession, inject: Callable[[str], None], sqlstate: str
) -> None:
    """An answer, where a row is to blame and that is an answer; else an error of callgate's."""
    inject(sqlstate)
    for ask in (*METHODS.values(), *OF_REDRIVES.values()):
        with suppress(CallgateError):
            ask(session)


def test_every_code_has_a_meaning(session: PostgresSession, inject: Callable[[str], None]) -> None:
    """All that psycopg2 knows, and some that nobody knows."""
    for sqlstate in (*SQLSTATES, "ZZ999", "AB123"):
        with pytest.raises(CallgateError):
            session.rows(failing(sqlstate), {})
    assert session.rows("SELECT 1 AS one", {})[0].one == 1


@pytest.mark.parametrize("error", [psycopg2.InterfaceError, psycopg2.OperationalError, OSError])
def test_an_error_of_the_driver_itself_is_unavailability(
    session: PostgresSession, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Past SQLAlchemy too, as when a connection is closed between two looks at it."""

    def broken(*_: object) -> object:
        raise error("connection already closed")

    monkeypatch.setattr("callgate.adapters.postgres.session._Watchdog.deadline", broken)
    with pytest.raises(LedgerUnavailable):
        session.rows("SELECT 1", {})


@pytest.mark.parametrize("sqlstate", OF_EACH_MEANING)
def test_no_command_ends_in_a_traceback(
    command: Command,
    inject: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    sqlstate: str,
) -> None:
    """Each ends with an exit code of its own, and says on one line what was wrong."""
    inject(sqlstate)
    for arguments in COMMANDS:
        code = command(*arguments)

        out, err = capsys.readouterr()
        assert code in (0, 1, 2), arguments
        assert "Traceback" not in out + err


@pytest.mark.parametrize(
    "sqlstate", ["22023", "23505", "42P07", "25006", "40001", "XX000", "0A000"]
)
def test_migrations_end_in_a_word(
    services: DevServers, monkeypatch: pytest.MonkeyPatch, sqlstate: str
) -> None:
    """Whatever goes wrong in the middle of one."""

    def fail(config: Any, revision: str) -> None:
        config.attributes["connection"].exec_driver_sql(failing(sqlstate))

    monkeypatch.setattr("worker.migrate.command.upgrade", fail)
    with pytest.raises(CallgateError):
        migrate(services.database_url)
