"""The development servers serve, keep their data, and can be killed, stopped and suspended."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from redis import Redis

from devkit.servers.embedded import DevServers
from tests.support.dev_servers import connect, fetch, password, query, servers, urls


def test_both_servers_serve(embedded: DevServers) -> None:
    """The URLs lead to a PostgreSQL 18 and a Valkey that never evicts."""
    with closing(connect(embedded)) as connection, Redis.from_url(embedded.broker_url) as valkey:
        assert connection.server_version // 10_000 == 18
        assert valkey.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_no_server_runs_as_root(embedded: DevServers) -> None:
    """A server drops the rights of root before it starts."""
    uids = {Path(f"/proc/{server.pid}").stat().st_uid for server in servers(embedded)}

    assert 0 not in uids


def test_the_database_asks_for_a_password(embedded: DevServers) -> None:
    """A superuser of PostgreSQL can run programs, so other accounts of this machine must not connect."""
    url = embedded.database_url.replace(f":{password(embedded)}@", ":guess@")

    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url.replace("+psycopg2", ""))


def test_what_is_stored_survives_the_next_run(folder: Path) -> None:
    """`callgate up` needs the same data and URLs after a restart."""
    with DevServers(folder, fsync=False) as first, Redis.from_url(first.broker_url) as valkey:
        query(first, "CREATE TABLE IF NOT EXISTS survivor AS SELECT 7")
        valkey.set("survivor", 7)

    with DevServers(folder, fsync=False) as second, Redis.from_url(second.broker_url) as valkey:
        assert query(second, "SELECT * FROM survivor") == [(7,)]
        assert valkey.get("survivor") == b"7"
        assert urls(first) == urls(second)


def test_valkey_without_persistence_keeps_no_data(folder: Path) -> None:
    """Without persistence, the next run starts with empty queues."""
    with DevServers(folder, fsync=False, valkey_persistence=False) as embedded:
        Redis.from_url(embedded.broker_url).set("forgotten", 1)
        embedded.valkey.kill()
        embedded.valkey.start()

        assert Redis.from_url(embedded.broker_url).get("forgotten") is None


def test_a_killed_server_comes_back_with_its_data(embedded: DevServers) -> None:
    """Committed rows and acknowledged writes outlive SIGKILL; the URLs stay valid."""
    query(embedded, "CREATE TABLE IF NOT EXISTS killed AS SELECT 7")
    Redis.from_url(embedded.broker_url).set("killed", 7)

    for server in servers(embedded):
        server.kill()
        assert not server.is_alive()
        server.start()

    assert query(embedded, "SELECT * FROM killed") == [(7,)]
    assert Redis.from_url(embedded.broker_url).get("killed") == b"7"


def test_a_stopped_server_comes_back_on_the_same_port(embedded: DevServers) -> None:
    """`stop` shuts down in order, and `start` works afterwards."""
    for server in servers(embedded):
        server.stop()
        assert not server.is_alive()
        server.start()

    assert query(embedded, "SELECT 1") == [(1,)]
    assert Redis.from_url(embedded.broker_url).ping()


def test_a_suspended_database_answers_nothing_and_breaks_nothing(embedded: DevServers) -> None:
    """Clients need their own deadlines for this outage: sockets stay open, and no reply comes."""
    with closing(connect(embedded)) as connection:
        embedded.postgres.suspend()
        answers: list[Any] = []
        asker = threading.Thread(target=lambda: answers.append(fetch(connection, "SELECT 7")))
        asker.start()
        asker.join(0.3)
        silent, alive = not answers, embedded.postgres.is_alive()

        embedded.postgres.resume()
        asker.join(10)

        assert silent
        assert alive
        assert answers == [[(7,)]]


def test_a_suspended_broker_can_be_stopped(embedded: DevServers, folder: Path) -> None:
    """Stopping resumes first: a suspended process would never see the request."""
    embedded.valkey.suspend()

    embedded.valkey.stop()

    assert not embedded.valkey.is_alive()
    assert "Valkey is now ready to exit" in (folder / "valkey.log").read_text()
