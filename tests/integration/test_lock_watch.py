"""A client that holds too many of the server's locks is ended, and nobody else; also when there is no lock left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg2
import pytest
from sqlalchemy import Engine, make_url, text

from callgate.adapters.postgres import lock_watch as postgres_lock_watch
from callgate.adapters.postgres.lock_watch import PostgresLockWatch
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.reports import LockHoarder
from tests.support.logins import a_login, name_of

Session = psycopg2.extensions.connection
Watch = Callable[[], list[LockHoarder]]
ROOM = """SELECT current_setting('max_locks_per_transaction')::int
    * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)"""
TABLES = 1_100
"""More than the 1,024 counters by which Postgres tells whose locks need the shared table."""


@pytest.fixture
def owner_url(postgres_engine: Engine) -> str:
    """The owner's, a superuser."""
    return postgres_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def room(postgres_engine: Engine) -> int:
    """How many locks the server has room for, by its settings."""
    with postgres_engine.connect() as connection:
        return int(connection.scalar(text(ROOM)) or 0)


@pytest.fixture
def look(owner_url: str) -> Iterator[Watch]:
    """Looks as a worker does, and has looked before."""
    with (
        a_login(owner_url, WORKER) as url,
        closing(PostgresLockWatch(PostgresSession(url, pool_size=2))) as watch,
    ):
        assert watch.look() == []
        yield watch.look


@contextmanager
def open_session(url: str) -> Iterator[Session]:
    """A session without limits of time."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(dsn)) as session:
        session.autocommit = True
        run(session, "SET statement_timeout = 0")
        yield session


def run(session: Session, sql: str) -> None:
    """Run a statement."""
    with session.cursor() as cursor:
        cursor.execute(sql)


def take(session: Session, count: int, *, above: int = 0) -> None:
    """Take advisory locks."""
    numbers = f"generate_series({above + 1}, {above + count})"
    run(session, f"SELECT count(pg_advisory_lock_shared(n)) FROM {numbers} n")  # noqa: S608


def fill(session: Session) -> None:
    """Take all there are."""
    with pytest.raises(psycopg2.errors.OutOfMemory):
        take(session, 1_000_000)


def renewed(look: Watch) -> None:
    """Have the watch begin a new transaction, where that is due at once."""
    for _ in range(2):
        assert look() == []


def is_open(session: Session) -> bool:
    """Whether it has not been ended; a session that is being ended answers no more."""
    with suppress(psycopg2.Error):
        run(session, "SELECT 1")
        return True
    return False


def test_a_client_above_a_quarter_is_ended(owner_url: str, room: int, look: Watch) -> None:
    """And none below it."""
    with (
        a_login(owner_url, CLIENT) as one,
        a_login(owner_url, CLIENT) as other,
        open_session(one) as greedy,
        open_session(other) as modest,
    ):
        take(modest, room // 4 - 50)
        take(greedy, room // 4 - 50)
        before = look()
        take(greedy, 100, above=room // 4)
        (ended,) = look()

        assert before == []
        assert (ended.login, ended.was_ended) == (name_of(one), True)
        assert room // 4 < ended.locks < room // 4 + 60
        assert not is_open(greedy)
        assert is_open(modest)


def test_sessions_of_one_login_count_together(owner_url: str, room: int, look: Watch) -> None:
    """Those with the most locks are ended, as many as it takes."""
    with (
        a_login(owner_url, CLIENT) as url,
        open_session(url) as small,
        open_session(url) as large,
        open_session(url) as largest,
    ):
        take(small, room // 10)
        take(large, room // 6)
        take(largest, room // 5)
        ended = look()

        assert len(ended) == 2
        assert [is_open(s) for s in (small, large, largest)] == [True, False, False]


def test_clients_together_get_a_half(owner_url: str, room: int, look: Watch) -> None:
    """Each of the three stays below its own bound."""
    with ExitStack() as held:
        urls = [held.enter_context(a_login(owner_url, CLIENT)) for _ in range(3)]
        sessions = [held.enter_context(open_session(url)) for url in urls]
        for n, session in enumerate(sessions):
            take(session, room // 5 + 10 * n)
        (ended,) = look()

        assert ended.login == name_of(urls[2])
        assert [is_open(s) for s in sessions] == [True, True, False]


@pytest.mark.parametrize(
    ("roles", "options"),
    [
        ((WORKER,), ""),
        ((CLIENT, WORKER), ""),
        ((DASHBOARD,), ""),
        ((), ""),
        ((CLIENT,), "SUPERUSER"),
        ((CLIENT, "callgate"), ""),
    ],
    ids=["worker", "client and worker", "dashboard", "none", "superuser", "owner"],
)
def test_nobody_else_is_ended(
    owner_url: str, room: int, look: Watch, roles: tuple[str, ...], options: str
) -> None:
    """However many locks it holds."""
    with a_login(owner_url, *roles, options=options) as url, open_session(url) as session:
        take(session, room // 2 + 100)

        assert look() == []
        assert is_open(session)


def test_a_full_table_is_freed(owner_url: str, look: Watch) -> None:
    """The watch had never seen that login, and nobody else can even connect."""
    with a_login(owner_url, CLIENT) as url, open_session(url) as hostile:
        fill(hostile)
        with pytest.raises(psycopg2.OperationalError, match="out of shared memory"):
            psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
        (ended,) = look()

        assert (ended.login, ended.was_ended) == (name_of(url), True)
        assert not is_open(hostile)


def test_a_full_table_is_freed_by_a_watch_that_has_lost_its_caches(
    owner_url: str, look: Watch
) -> None:
    """Many tables at once empty the caches of all sessions; strong locks send all others to the shared table."""
    with (
        a_login(owner_url, CLIENT) as url,
        open_session(url) as hostile,
        open_session(url) as other,
    ):
        names = [f"t{n}" for n in range(TABLES)]
        run(other, f"BEGIN; {' '.join(f'CREATE TEMP TABLE {n} ();' for n in names)} COMMIT")
        run(other, f"BEGIN; LOCK TABLE {', '.join(names)}")
        run(hostile, f"ALTER ROLE {name_of(url)} PASSWORD 'other'")
        fill(hostile)
        ended = look()

        assert [hoarder.was_ended for hoarder in ended] == [True]
        assert not is_open(hostile)
        assert is_open(other)


def test_a_full_table_stops_no_watch_that_is_renewed(
    owner_url: str, look: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next transaction is there before the last one ends; without room for it the last one goes on."""
    monkeypatch.setattr(postgres_lock_watch, "RENEWED_AFTER_S", 0.0)
    renewed(look)
    with a_login(owner_url, CLIENT) as url, open_session(url) as hostile:
        fill(hostile)
        (ended,) = look()
        assert ended.was_ended
        assert not is_open(hostile)


def test_the_open_transaction_holds_back_no_vacuum(owner_url: str, look: Watch) -> None:
    """It has no snapshot between two looks."""
    look()
    with open_session(owner_url) as owner, owner.cursor() as cursor:
        cursor.execute(
            "SELECT usename, backend_xid, backend_xmin FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
        (row,) = cursor.fetchall()

    assert row[0].startswith("login_")
    assert row[1:] == (None, None)


def test_no_limit_of_time_ends_the_open_transaction(owner_url: str) -> None:
    """Whatever the login has been given."""
    limits = ("idle_in_transaction_session_timeout", "transaction_timeout")
    with a_login(owner_url, WORKER) as url, open_session(owner_url) as owner:
        for limit in limits:
            run(owner, f"ALTER ROLE {name_of(url)} SET {limit} = '200ms'")
        with closing(PostgresLockWatch(PostgresSession(url, pool_size=2))) as watch:
            watch.look()
            time.sleep(0.5)
            assert watch.look() == []


def test_who_may_end_nobody_says_so(
    owner_url: str, room: int, look: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the owner of the function is given pg_signal_backend, and the transaction is renewed."""
    monkeypatch.setattr(postgres_lock_watch, "RENEWED_AFTER_S", 0.0)
    function = "FUNCTION callgate_end_lock_hoarders_v1()"
    with (
        a_login(owner_url) as plain,
        a_login(owner_url, CLIENT) as url,
        open_session(owner_url) as admin,
        open_session(url) as greedy,
    ):
        run(admin, f"ALTER {function} OWNER TO {name_of(plain)}")
        try:
            renewed(look)
            take(greedy, room // 4 + 100)
            (before,) = look()
            assert is_open(greedy)
            run(admin, f"GRANT pg_signal_backend TO {name_of(plain)}")
            (after,) = look()
            assert not is_open(greedy)
        finally:
            run(admin, f"ALTER {function} OWNER TO callgate")

    assert (before.was_ended, after.was_ended) == (False, True)


def test_a_watch_that_was_cut_off_looks_again(owner_url: str) -> None:
    """It says that it could not look, once, and has a new connection afterwards."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    )
    with (
        closing(PostgresLockWatch(PostgresSession(owner_url, pool_size=2))) as watch,
        open_session(owner_url) as owner,
    ):
        watch.look()
        run(owner, end)
        with pytest.raises(LedgerUnavailable):
            watch.look()
        assert watch.look() == []
