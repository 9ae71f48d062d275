"""
Becomes a server: ties itself to its owner's life, puts root aside, and executes the program it is given.

    python -I -S embedded_child.py OWNER_PID UID GID PASSAGE PROGRAM ARGUMENT...

It is a program of its own, not a `preexec_fn`, because Python code between fork and exec can deadlock in a
process that has threads. UID `-1` keeps the account of the owner. PASSAGE `1` lets the account enter folders that
only root may enter; an ordinary account could otherwise not reach a checkout or a data folder under root's home. That
needs the capability DAC_OVERRIDE, and SETPCAP for PostgreSQL's programs; containers have both by default.
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
    """The command that runs a program tied to the life of the process that asks."""
    words = map(str, (os.getpid(), uid, gid, int(passage)))
    return [sys.executable, "-I", "-S", __file__, *words, *program]


def main() -> None:
    owner_pid, uid, gid, passage = (int(word) for word in sys.argv[1:5])
    program = sys.argv[5:]
    # What it writes beside its log is its owner's too: Valkey's files, a proxy's counts.
    os.umask(0o077)
    try:
        if uid != -1:
            _become(uid, gid, passage=bool(passage))
        die_with(owner_pid)
        os.execv(program[0], program)  # noqa: S606 - the arguments are the owner's, and no shell is wanted
    except OSError as exc:
        sys.exit(f"cannot start {program[0]} as uid {os.geteuid()}: {exc}")


def _become(uid: int, gid: int, *, passage: bool) -> None:
    """Change to an ordinary account for good; with `passage`, folders closed to it stay passable."""
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
    """Give up every capability but one, and keep that one across exec (an ambient capability)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Two 32-bit words of effective, permitted and inheritable each.
    words = (ctypes.c_uint32 * 6)(*[1 << capability] * 3, 0, 0, 0)
    _ask(_libc.capset(header, words))
    _ask(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def die_with(owner_pid: int) -> None:
    """Be killed when the owner, the parent process, ends; changing the account clears this, so it comes after."""
    _ask(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != owner_pid:
        # The owner was gone before the kernel knew of the tie.
        sys.exit(f"the owner, process {owner_pid}, has ended")


def _ask(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
