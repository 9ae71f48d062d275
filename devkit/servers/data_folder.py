"""The data folder of the embedded servers: who holds it, who owns what is in it, where the programs come from."""

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
    Make a data folder if it is missing, and hold it; the kernel lets go when this process ends, however it ends.

    A folder made here is closed to others. One that was there keeps its mode; what is put into it is closed.

    Raises:
        FolderInUse: another process holds it.
        EmbeddedError: the operating system refuses something, here or inside the `with`.
    """
    try:
        with suppress(FileExistsError):
            # As root, the servers' account has to pass through it.
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
    """Choose the account that runs programs in a folder: the owner's own, or an ordinary one if that is root."""
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
    """Tell whether any account may read what is at `path` and enter the folders above it, links included."""
    return path.stat().st_mode & 0o005 == 0o005 and _is_passable(path)


def _is_passable(path: Path) -> bool:
    folders = {*path.parents, *path.resolve().parents}
    return all(folder.stat().st_mode & 0o001 for folder in folders)


def own_folder(path: Path, account: Account | None) -> Path:
    """Make a folder, if it is missing, that the servers' account alone can read."""
    path.mkdir(exist_ok=True)
    path.chmod(0o700)
    own(path, account)
    return path


def own(path: Path, account: Account | None) -> None:
    """Give a file or folder to the servers' account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def mark_of(folder: Path) -> str:
    """Name the server of a folder, for its command line."""
    return f"callgate-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def package_folder(package: str, *, extra: str) -> Path:
    """
    Find where a package is installed, without importing it.

    Raises:
        EmbeddedError: it is not; names the extra of callgate that brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DevServersError(f"{package} is not installed: pip install 'callgate[{extra}]'")
    return Path(spec.origin).parent
