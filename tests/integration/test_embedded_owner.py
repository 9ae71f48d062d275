"""The development servers end with the process that started them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from devkit.servers.embedded import DevServers
from tests.support.dev_servers import pids_of, query, servers
from tests.support.waiting import until

OWNER = """
import sys, time
from devkit.servers.embedded import DevServers

with DevServers(sys.argv[1], fsync=False) as embedded:
    servers = [embedded.postgres, embedded.valkey]
    if sys.argv[2] == "suspended":
        for server in servers:
            server.suspend()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(folder: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts another process that runs both servers on the folder, and waits until they are ready."""
    owners = []

    def start(state: str) -> "subprocess.Popen[str]":
        owner = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", OWNER, str(folder), state],
            stdout=subprocess.PIPE,
            text=True,
        )
        owners.append(owner)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


@pytest.mark.parametrize("state", ["running", "suspended"])
def test_servers_die_with_a_killed_owner(
    state: str, folder: Path, owner: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    """No process is left: the folder can be used again at once."""
    killed = owner(state)
    orphans = pids_of(folder)

    killed.kill()
    killed.wait()
    with DevServers(folder, fsync=False) as embedded:
        assert query(embedded, "SELECT 1") == [(1,)]
        assert orphans.isdisjoint(pids_of(folder))


def test_servers_end_without_a_next_start_when_their_owner_is_killed(
    folder: Path, owner: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    """The kernel ends them, not the next start on the folder."""
    killed = owner("running")
    assert pids_of(folder)

    killed.kill()

    until(lambda: not pids_of(folder))


def test_an_interrupt_from_the_terminal_does_not_reach_the_servers(embedded: DevServers) -> None:
    """Ctrl-C reaches the process group of the owner only; the owner stops its servers."""
    groups = {os.getpgid(server.pid) for server in servers(embedded)}

    assert os.getpgrp() not in groups


def test_servers_outlive_the_thread_that_started_them(folder: Path) -> None:
    """The kernel kills a child when the thread that started it ends. So the thread must live as long as the servers."""
    embedded = DevServers(folder, fsync=False)
    starter = threading.Thread(target=embedded.__enter__)
    starter.start()
    starter.join()
    try:
        assert query(embedded, "SELECT 1") == [(1,)]
        assert Redis.from_url(embedded.broker_url).ping()
    finally:
        embedded.__exit__()
