"""
Run a program that is killed when its owner ends, optionally under another account.

    python -I -S tied_process.py OWNER_PID UID GID PASSAGE PROGRAM ARGUMENT...

It is a separate program and not a `preexec_fn`, because Python code between fork and exec can deadlock in a process
with threads. UID `-1` keeps the account of the owner. PASSAGE `1` keeps the capability to enter folders that only root
may enter; without it an ordinary account could not reach a checkout or a data folder under root's home. That needs the
capability DAC_OVERRIDE, and SETPCAP for PostgreSQL's programs; containers have both by default.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

# linux/prctl.h, linux/securebits.h and linux/capability.h, Linux 4.3 and later.
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

CLOSED = (
    "this machine does not let an ordinary account into a folder that only root may enter: if this fails, move the"
    " checkout and its data to folders that every account may enter, or run it as an ordinary user"
)

_libc = ctypes.CDLL(None, use_errno=True)


def tied(
    program: Sequence[str], *, uid: int = -1, gid: int = -1, passage: bool = False
) -> list[str]:
    """Return the command that runs a program tied to the life of this process."""
    words = map(str, (os.getpid(), uid, gid, int(passage)))
    return [sys.executable, "-I", "-S", __file__, *words, *program]


def main() -> None:
    owner_pid, uid, gid, passage = (int(word) for word in sys.argv[1:5])
    program = sys.argv[5:]
    # The files that it writes, for example Valkey's, are its account's only.
    os.umask(0o077)
    try:
        if uid != -1:
            _become(uid, gid, passage=bool(passage))
        die_with(owner_pid)
        os.execv(program[0], program)  # noqa: S606 - the arguments are the owner's, and no shell is wanted
    except OSError as exc:
        sys.exit(f"cannot start {program[0]} as uid {os.geteuid()}: {exc}")


def _become(uid: int, gid: int, *, passage: bool) -> None:
    """Change to an ordinary account, irrevocably; with `passage` it may still enter folders closed to it."""
    if passage:
        _ask(_libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        # By access(2) initdb looks for `postgres`; that honours no capability unless this bit is set (man 2 access).
        if _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0:
            print(CLOSED, file=sys.stderr)  # noqa: T201 - into the log, which is shown if the program fails
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if passage:
        _keep_only(CAP_DAC_OVERRIDE)


def _keep_only(capability: int) -> None:
    """Give up all capabilities but one, and keep that one across exec (an ambient capability)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Two 32-bit words of effective, permitted and inheritable each.
    words = (ctypes.c_uint32 * 6)(*[1 << capability] * 3, 0, 0, 0)
    _ask(_libc.capset(header, words))
    _ask(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def die_with(owner_pid: int) -> None:
    """Have this process killed when its parent, the owner, ends. Call it after a change of account, which clears it."""
    _ask(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != owner_pid:
        # The owner ended before the kernel had registered the request.
        sys.exit(f"the owner, process {owner_pid}, has ended")


def _ask(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
