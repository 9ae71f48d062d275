"""A tenant opens as many connections as its login may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing

import psycopg2
import pytest
from sqlalchemy import make_url

from callgate.adapters.postgres.roles import WORKER
from devkit.servers.postgres import CONNECTIONS_MAX
from tests.support.deployment import Deployment, Process
from tests.support.logins import a_client, a_login


def test_a_tenant_takes_no_workers_connections(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Workers have reserved connections: they start and run calls while clients are refused."""
    org, url = deployment.org(), deployment.services.database_url
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(5)])
    with ExitStack() as held:
        hostile = held.enter_context(a_client(deployment.client._session, deployment.org()))
        own = held.enter_context(a_login(url, WORKER, "pg_use_reserved_connections"))
        with pytest.raises(psycopg2.OperationalError, match="reserved"):
            _open_all(hostile, held)

        worker(CALLGATE_DATABASE_URL=own)
        ended = list(deployment.client.as_completed(handles, timeout=30))

        assert len(ended) == 5
        deployment.stop_workers()


def _open_all(url: str, held: ExitStack) -> None:
    for _ in range(CONNECTIONS_MAX):
        held.enter_context(closing(psycopg2.connect(_dsn(url))))


def _dsn(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
