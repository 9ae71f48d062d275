"""
A restore from a base backup: what docs/howto/backup.md says becomes of calls.

The first servers are killed after the backup and after more work. The second ones start from the backup, with an empty
broker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from callgate import CallNotFound
from callgate.domain.calls import CallState
from devkit.servers.data_folder import account_for, own
from devkit.servers.embedded import DevServers
from devkit.servers.postgres import postgres_binary
from devkit.simulator.simulator import Kind, Match, Rule, Simulator, Step
from tests.support.deployment import Deployment, until, until_equal
from worker.migrate import migrate

TEXTS = SENT, ENDED, QUEUED, LATER = "call one", "call two", "call three", "call four"
PATIENCE_S = 60.0


def back_up(servers: DevServers, folder: Path) -> None:
    """Take a base backup into a data folder from which servers can be started."""
    url = make_url(servers.database_url)
    folder.mkdir(mode=0o711)
    subprocess.run(  # noqa: S603 - our own program
        [
            *(postgres_binary().with_name("pg_basebackup"), "--pgdata", folder / "postgres"),
            *("--host", str(url.host), "--port", str(url.port), "--username", str(url.username)),
            *("--checkpoint", "fast", "--wal-method", "stream"),
        ],
        env={**os.environ, "PGPASSWORD": str(url.password)},
        check=True,
        timeout=PATIENCE_S,
    )
    (folder / "password").write_text(str(url.password))
    account = account_for(folder, postgres_binary())
    for path in (folder / "password", folder / "postgres", *(folder / "postgres").rglob("*")):
        own(path, account)


@contextmanager
def running(folder: Path, provider: Simulator, work: Path) -> Iterator[Deployment]:
    """Servers in a data folder, and a deployment on them that keeps what the ledger has."""
    work.mkdir()
    with ExitStack() as stack:
        servers = stack.enter_context(DevServers(folder, fsync=False, valkey_persistence=False))
        migrate(servers.database_url)
        deployment = Deployment(servers, provider, work)
        stack.callback(deployment.__exit__)
        yield deployment


def is_sent(deployment: Deployment, org: str) -> bool:
    """Whether the newest attempt of an organisation is under way."""
    return bool(deployment.attempts(org)[-1].status == "dispatched")


def calls_of(provider: Simulator, text: str) -> int:
    """How often the provider was asked something."""
    return sum(text in body.body for body in provider.bodies())


def assert_paid_as_unknown_and_sent_again(after: Deployment, org: str, task_id: str) -> None:
    """Nobody knows whether the attempt of before was answered: its whole hold is posted."""
    attempts = [row for row in after.attempts(org) if str(row.call_id) in task_id]
    assert [row.status for row in attempts] == ["unknown", "succeeded"]
    assert attempts[0].posted_nano_usd == attempts[0].hold_nano_usd > 0


def test_calls_after_a_restore_are_as_the_page_says(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with Simulator() as provider:
        provider.script([Rule(match=Match(text=SENT), reply=[Step(kind=Kind.HANG), Step()])])
        with running(tmp_path / "data", provider, tmp_path / "before") as before:
            org = before.org()
            requests = {text: before.request(org, text, call_type="brief") for text in TEXTS}
            worker = before.worker()
            ended = before.client.submit(requests[ENDED])
            answer = ended.get(timeout=PATIENCE_S)
            sent = before.client.submit(requests[SENT])
            until(lambda: is_sent(before, org) and calls_of(provider, SENT))
            worker.kill()
            queued = before.client.submit(requests[QUEUED])
            back_up(before.services, backup)
            before.worker()
            queued.get(timeout=PATIENCE_S)
            later = before.client.submit(requests[LATER])
            later.get(timeout=PATIENCE_S)
        sent_before = {text: calls_of(provider, text) for text in requests}
        shutil.rmtree(tmp_path / "data")

        with running(backup, provider, tmp_path / "after") as after:
            client = after.client
            assert client.handle(queued.task_id).state is CallState.QUEUED
            with pytest.raises(CallNotFound):
                client.handle(later.task_id).get(timeout=0)
            after.worker()

            assert client.handle(ended.task_id).get(timeout=PATIENCE_S).text == answer.text
            client.handle(queued.task_id).get(timeout=PATIENCE_S)
            client.handle(sent.task_id).get(timeout=PATIENCE_S)
            client.submit(requests[LATER]).get(timeout=PATIENCE_S)

            until_equal(0, after.open_calls)
            assert_paid_as_unknown_and_sent_again(after, org, sent.task_id)
            assert calls_of(provider, ENDED) == sent_before[ENDED] == 1
            assert calls_of(provider, QUEUED) == sent_before[QUEUED] + 1 == 2
            assert calls_of(provider, LATER) == sent_before[LATER] + 1 == 2
            after.assert_audit_is_clean()
