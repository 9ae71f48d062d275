"""
Check answers against schemas, one at a time, in a process with limits of time and memory.

    python -m worker.isolation.schema_child        reads orders from standard input, writes one line of JSON for each

If further complaints are wanted, a second line follows.

Of the process that started it, it has only the code and two pipes. Schema and answer come from strangers. A check that
takes too much CPU time is ended by a signal, together with the process; one that takes too much memory ends the process
or is reported. The process ends by itself when it has grown, so that every check has about the same memory.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from callgate.adapters.json_schema_validator import JsonSchemaValidator

READY = b"ready\n"
HEADER = struct.Struct("!III")
"""How many complaints are wanted, and the lengths in bytes of schema and text, which follow."""
CPU_MAX_S = 1.0
"""CPU time of one check, including the compilation of its schema. The search for further complaints has as much."""
DATA_MAX_BYTES = 512 * 2**20
KEPT_MAX_KIB = 192 * 2**10
"""A process whose peak memory is larger ends after the check."""
WHY_CHARS_MAX = 4_000


def order_of(schema: str, text: str, complaints_max: int = 1) -> bytes:
    """Return the bytes of an order to check a text."""
    # A provider may have sent a lone surrogate; the validator decides about it.
    both = [part.encode("utf-8", "surrogatepass") for part in (schema, text)]
    return HEADER.pack(complaints_max, *map(len, both)) + b"".join(both)


def main() -> None:
    """Execute orders until there are no more."""
    _limit()
    # A signal to the whole process group must not stop a check that the worker's drain waits for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # SIGPROF ends a long check. The owner's handler and mask are inherited, so both are reset.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a library prints during a check is a stranger's text.
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
    for which, limit in limits.items():
        _, hard = resource.getrlimit(which)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (allowed, allowed))


def _serve(validator: JsonSchemaValidator, orders: BinaryIO, answers: BinaryIO) -> None:
    is_last = False
    while not is_last and len(header := orders.read(HEADER.size)) == HEADER.size:
        most, *sizes = HEADER.unpack(header)
        parts = [orders.read(size) for size in sizes]
        # ITIMER_PROF counts CPU time, not wall time. There is no handler, which a long check could delay.
        signal.setitimer(signal.ITIMER_PROF, CPU_MAX_S)
        is_costly, why = False, None
        try:
            schema, text = (part.decode("utf-8", "surrogatepass") for part in parts)
            why = validator.check(schema, text)
        except MemoryError:
            is_costly = True
        signal.setitimer(signal.ITIMER_PROF, 0)
        has_more = why is not None and most > 1
        is_last = not has_more and (is_costly or _peak_kib() > KEPT_MAX_KIB)
        _write_result(answers, why=why, is_costly=is_costly, is_last=is_last, has_more=has_more)
        if why is not None and has_more:
            # The verdict is told already: what ends the process now costs only the further complaints.
            signal.setitimer(signal.ITIMER_PROF, CPU_MAX_S)
            with suppress(MemoryError):
                why = validator.complaints(schema, text, why, most)
            signal.setitimer(signal.ITIMER_PROF, 0)
            is_last = _peak_kib() > KEPT_MAX_KIB
            _write_result(answers, why=why, is_last=is_last)
        del parts


def _write_result(answers: BinaryIO, *, why: str | None, **fields: bool) -> None:
    answers.write(json.dumps({"why": why and why[:WHY_CHARS_MAX], **fields}).encode() + b"\n")
    answers.flush()


def _peak_kib() -> int:
    """The peak memory of this program. Not `ru_maxrss`: that starts with the peak of the parent."""
    lines = Path("/proc/self/status").read_bytes().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(b"VmHWM:"))


if __name__ == "__main__":
    main()
