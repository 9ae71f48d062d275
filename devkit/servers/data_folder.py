"""The data folder of the development servers: its lock, its owner, and where the programs come from."""

import fcntl
import hashlib
import importlib.util
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devkit.servers.server import Account, DevServersError, FolderInUse, private

ORDINARY_ACCOUNT = "nobody"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """
    Create a data folder if it is missing, and lock it. The kernel releases the lock when this process ends.

    A folder created here is closed to other accounts. An existing one keeps its mode; files in it are closed to others.

    Raises:
        FolderInUse: another process holds it.
        DevServersError: the operating system returned an error, here or inside the `with`.
    """
    try:
        with suppress(FileExistsError):
            # If this process is root, the account of the servers must be able to enter it.
            folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True)
        with open(folder / "lock", "a+", opener=private) as file:
            _lock(file.fileno(), folder)
            yield
    except OSError as exc:
        raise DevServersError(f"cannot keep servers in the data folder {folder}: {exc}") from exc


def _lock(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode() or "unknown"
        raise FolderInUse(
            f"{folder} is in use by process {holder}; end it, or choose another data folder"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())


def account_for(folder: Path, *programs: Path) -> Account | None:
    """Choose the account for programs in a folder: None for that of this process, or an ordinary one if it is root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(ORDINARY_ACCOUNT)
    except KeyError:
        raise DevServersError(
            f"PostgreSQL refuses to run as root, and there is no account {ORDINARY_ACCOUNT!r};"
            " run this as an ordinary user"
        ) from None
    return Account(
        entry.pw_uid,
        entry.pw_gid,
        passage=not (_is_passable(folder / "any") and all(map(is_open, programs))),
    )


def is_open(path: Path) -> bool:
    """Tell whether every account may read `path` and enter the folders above it; links are followed."""
    return path.stat().st_mode & 0o005 == 0o005 and _is_passable(path)


def _is_passable(path: Path) -> bool:
    folders = {*path.parents, *path.resolve().parents}
    return all(folder.stat().st_mode & 0o001 for folder in folders)


def own_folder(path: Path, account: Account | None) -> Path:
    """Create a folder, if it is missing, that only the account of the servers can read."""
    path.mkdir(exist_ok=True)
    path.chmod(0o700)
    own(path, account)
    return path


def own(path: Path, account: Account | None) -> None:
    """Make the account of the servers the owner of a file or folder."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def process_tag_of(folder: Path) -> str:
    """Return what identifies the server of a folder on command lines."""
    return f"callgate-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def package_folder(package: str, *, extra: str) -> Path:
    """
    Return the folder of an installed package, without importing it.

    Raises:
        DevServersError: it is not installed; the message names the extra of callgate that includes it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DevServersError(f"{package} is not installed: pip install 'callgate-worker[{extra}]'")
    return Path(spec.origin).parent
