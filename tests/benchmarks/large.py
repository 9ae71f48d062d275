"""
Measure a large ledger: `make test-large`. It seeds a year of history, and takes minutes; not for CI.

    python -m tests.benchmarks.large                              ten million rows of the log, a million calls
    python -m tests.benchmarks.large --rows 1000000 --calls 100000
    python -m tests.benchmarks.large --json

Beside each time stand the CPU seconds of its Postgres sessions, which a busy machine does not change much. The hot path
is measured in turns on the large ledger and on an empty one of the same server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.threads import in_threads
from callgate.cli.budgets import AUDIT_SESSIONS
from callgate.domain.budgets import Window
from callgate.domain.calls import CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.reports import By, CallFilter
from callgate.domain.sums import CostFilter
from callgate.services.audit import audit
from callgate.services.periods import today
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import a_submission, a_success, an_answer, open_postgres
from worker.migrate import migrate

PLAN = Plan()
ORG = "org-0001"
"""The largest."""
TIMEOUT_S = 5.0
"""The default ledger timeout."""
ROUNDS = 15
BATCH = 100
AT_ONCE = 10
SESSIONS = """SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend'"""
Figures = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.large")
    parser.add_argument("--rows", type=int, default=PLAN.rows)
    parser.add_argument("--calls", type=int, default=PLAN.calls)
    parser.add_argument("--days", type=int, default=PLAN.days)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    plan = Plan(options.rows, options.calls, options.days)
    with tempfile.TemporaryDirectory(prefix="callgate-large-") as name:
        # The servers may run under another account.
        Path(name).chmod(0o755)
        with DevServers(Path(name) / "servers") as services:
            figures = measure(services.database_url, plan)
    print(json.dumps(figures, indent=2) if options.json else _lines(figures))  # noqa: T201
    return 0


def measure(url: str, plan: Plan) -> Figures:
    """Seed a ledger beside an empty one, and measure both."""
    migrate(url)
    empty_url = _another_database(url)
    migrate(empty_url)
    began = time.monotonic()
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    seed(engine, plan, progress=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    figures: Figures = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}",
        "rows": _count(url, "ai_call_log"),
        "calls": _count(url, "llm_call"),
        "day sums": _count(url, "day_sum"),
        "quarter sums": _count(url, "quarter_sum"),
        "seeded in s": round(time.monotonic() - began, 1),
    }
    figures |= _audits(url)
    figures |= _reports(url)
    figures |= hot_path(url, empty_url)
    return figures


def _audits(url: str) -> Figures:
    """All of it (as after a migration), what is open, and all of it with a short timeout."""
    found: Figures = {}
    for name, timeout_s, everything in (
        ("audit of all, never proven", TIMEOUT_S, False),
        ("audit of what is open", TIMEOUT_S, False),
        ("audit of all, timeout 1 s", 1.0, True),
    ):
        with _Session(url, timeout_s, AUDIT_SESSIONS) as session:
            try:
                report, took = session.timed(
                    partial(audit, everything=everything, sessions=AUDIT_SESSIONS, run=in_threads)
                )
            except LedgerUnavailable as exc:
                found[name] = {"failed": str(exc)}
                continue
            found[name] = {**took, "days": report.days, "is_clean": report.is_clean}
    return found


def _reports(url: str) -> Figures:
    listed: dict[str, CallFilter] = {
        "calls list": CallFilter(),
        "calls list, one organisation": CallFilter(org_id=ORG),
        "calls list, rejected": CallFilter(state=CallState.REJECTED),
        "calls list, a model that is not there": CallFilter(model="none"),
        "calls list, with an unknown attempt": CallFilter(outcome="unknown"),
        "dead letters": CallFilter(state=CallState.DEAD),
        "dead letters of one organisation": CallFilter(state=CallState.DEAD, org_id=ORG),
    }
    with _Session(url, TIMEOUT_S) as session:
        now = datetime.now(UTC)
        day = today(session.operations, ORG, now)
        asks: dict[str, Callable[[PostgresOperations], object]] = {
            "costs of all": lambda o: o.costs(),
            "costs of all by every dimension": lambda o: o.costs(by=("kind", "outcome", "tier")),
            "costs of an organisation": lambda o: o.costs(CostFilter(org_id=ORG)),
            "costs of an organisation, today": lambda o: o.costs(
                CostFilter(org_id=ORG, since=day.since, until=day.until)
            ),
            "dead letters in groups": lambda o: o.dead_groups(CallFilter()),
        }
        asks |= {n: partial(_list, which) for n, which in listed.items()}
        return {name: _median(session, ask) for name, ask in asks.items()}


def hot_path(url: str, empty_url: str) -> Figures:
    """What a call costs from submission to settlement, in batches, on both ledgers in turns."""
    with _Session(url, TIMEOUT_S) as large, _Session(empty_url, TIMEOUT_S) as empty:
        sessions = {"large": large, "empty": empty}
        taken: dict[str, list[Figures]] = {name: [] for name in sessions}
        for number in range(ROUNDS + 1):
            for name, session in sessions.items():
                session.prove_provider()
                _, took = session.timed(partial(session.run_calls, number))
                if number:
                    taken[name].append(took)
    medians = {
        name: {key: statistics.median(t[key] for t in rounds) / BATCH * 1000 for key in rounds[0]}
        for name, rounds in taken.items()
    }
    return {
        f"hot path, {name}, ms per call": {key: round(value, 3) for key, value in found.items()}
        for name, found in medians.items()
    }


class _Session:
    """Connections to a database, and what all of its sessions use."""

    def __init__(self, url: str, timeout_s: float, sessions: int = 1) -> None:
        self._session = PostgresSession(url, timeout_s=timeout_s, pool_size=sessions)
        self.operations = PostgresOperations(self._session)
        self.ledger = open_postgres(self._session)
        for window in Window:
            self.ledger.set_budget(10**15, org_id=ORG, window=window)

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def prove_provider(self) -> None:
        """Let its key count as one that answers, so that no call waits for a trial."""
        self.operations.set_breaker(
            "openai", "gpt-4o-mini", "", is_open=False, by=By("large", "it answers")
        )

    def timed(self, ask: Callable[[PostgresOperations], Any]) -> tuple[Any, Figures]:
        """An answer, and what it took: seconds, and seconds of CPU of the Postgres session."""
        before, began = self._cpu_s(), time.monotonic()
        answer = ask(self.operations)
        took = time.monotonic() - began
        return answer, {"s": round(took, 3), "cpu_s": round(self._cpu_s() - before, 4)}

    def run_calls(self, number: int, _: PostgresOperations) -> None:
        """Submit, reserve, record and settle calls, ten at a time: so many may be under way at once."""
        for start in range(0, BATCH, AT_ONCE):
            names = (f"large {number}.{start + n}" for n in range(AT_ONCE))
            batch = [a_submission(name, org_id=ORG) for name in names]
            refs = [self.ledger.claim(answer.key) for answer in self.ledger.submit(*batch)]
            self.ledger.record(*(an_answer(ref) for ref in refs))
            self.ledger.settle(*(a_success(ref) for ref in refs))

    def _cpu_s(self) -> float:
        """From /proc, in which it is counted by the nanosecond; the server runs on this machine."""
        rows = self._session.rows(SESSIONS, {})
        return sum(int(Path(f"/proc/{r.pid}/schedstat").read_text().split()[0]) for r in rows) / 1e9


def _list(which: CallFilter, operations: PostgresOperations) -> object:
    return operations.calls(which, limit=20)


def _median(session: _Session, ask: Callable[[PostgresOperations], object]) -> Figures:
    session.timed(ask)
    rounds = [session.timed(ask)[1] for _ in range(5)]
    return {key: round(statistics.median(r[key] for r in rounds), 3) for key in rounds[0]}


def _another_database(url: str) -> str:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE empty"))
    return make_url(url).set(database="empty").render_as_string(hide_password=False)


def _count(url: str, table: str) -> int:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608


def _lines(figures: Figures) -> str:
    return "\n".join(f"{name:44} {value}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())
