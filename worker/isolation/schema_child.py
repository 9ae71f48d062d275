"""
Checks answers against schemas, one at a time, where a limit of time or memory ends nothing else.

    python -m worker.isolation.schema_child        reads orders from standard input, writes a line of JSON about each

It has its code, its two pipes and nothing else of the process that started it. Both the schema and the answer come from
strangers: a check that takes too much processor time is ended by a signal, with the process; one that takes too much
memory ends it too, or says so. The process ends by itself when it has grown: each check has much the same memory.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
from pathlib import Path
from typing import BinaryIO

from callgate.adapters.json_schema_validator import JsonSchemaValidator

READY = b"ready\n"
HEADER = struct.Struct("!II")
"""Bytes of the schema and of the text, which follow."""
CPU_S_MAX = 1.0
"""What one check may take of a processor, compiling its schema included."""
DATA_MAX_BYTES = 512 * 2**20
KEPT_MAX_KIB = 192 * 2**10
"""A process that ever was larger ends after its check."""
WHY_CHARS_MAX = 1_000


def order_of(schema: str, text: str) -> bytes:
    """What to write to the process to have a text checked."""
    # A provider may have sent half a character; to say what that is worth is the validator's part.
    both = [part.encode("utf-8", "surrogatepass") for part in (schema, text)]
    return HEADER.pack(*map(len, both)) + b"".join(both)


def main() -> None:
    """Follow orders until there are no more."""
    _limit()
    # Whoever stops a whole group of processes must not stop a check that its worker's drain waits for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # The signal that ends a long check, whatever the owner does with it: both are inherited.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Whatever a check makes a library print is a stranger's.
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    answers.write(READY)
    answers.flush()
    _serve(JsonSchemaValidator(), orders, answers)


def _limit() -> None:
    limits = {
        resource.RLIMIT_DATA: DATA_MAX_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 16,
    }
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (allowed, allowed))


def _serve(validator: JsonSchemaValidator, orders: BinaryIO, answers: BinaryIO) -> None:
    is_last = False
    while not is_last and len(header := orders.read(HEADER.size)) == HEADER.size:
        parts = [orders.read(size) for size in HEADER.unpack(header)]
        # Unlike an alarm this counts the process's own time, and no handler can be put off by a long check.
        signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)
        is_costly, why = False, None
        try:
            schema, text = (part.decode("utf-8", "surrogatepass") for part in parts)
            why = validator.check(schema, text)
        except MemoryError:
            is_costly = True
        signal.setitimer(signal.ITIMER_PROF, 0)
        del parts
        is_last = is_costly or _peak_kib() > KEPT_MAX_KIB
        answer = {"why": why and why[:WHY_CHARS_MAX], "is_costly": is_costly, "is_last": is_last}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _peak_kib() -> int:
    """The most memory this program ever had. Not `ru_maxrss`: that begins with the peak of who started it."""
    lines = Path("/proc/self/status").read_bytes().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(b"VmHWM:"))


if __name__ == "__main__":
    main()
