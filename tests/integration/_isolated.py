"""
A child of `worker.isolation` that needs no services: what it does is decided by the call's id.

It starts in milliseconds, and says what it does in the file it is given.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from uuid import UUID

from callgate.domain.ledger import CallKey

ANSWER, DIE, HANG, BABBLE = (CallKey(UUID(int=n), 1) for n in range(1, 5))
DOES_NOT_START = "does-not-start"


def main(file: Path, how: str = "") -> None:
    """Speak the protocol."""
    with file.open("a") as notes:
        notes.write(f"started {os.getpid()}\n")
    if how == DOES_NOT_START:
        sys.exit("no")
    print("ready", flush=True)  # noqa: T201
    for order in sys.stdin:
        key = CallKey.from_task_id(order.strip())
        if key == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if key.call_id == HANG.call_id:
            time.sleep(60)
        print("what?" if key == BABBLE else "answered", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
