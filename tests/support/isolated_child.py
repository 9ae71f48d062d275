"""
A fork server for `worker.isolation.executor` whose children need no services: the call's id decides what they do.

It starts in milliseconds. Each child writes its start to the given file.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from uuid import UUID

from callgate.domain.calls import CallKey
from worker.isolation.forkserver import serve_forks

ANSWER, DIE, HANG, BABBLE = (CallKey(UUID(int=n), 1) for n in range(1, 5))
DOES_NOT_START = "does-not-start"


def run(file: Path, how: str, channel: socket.socket) -> None:
    """Speak the protocol."""
    with file.open("a") as notes:
        notes.write(f"started {os.getpid()}\n")
    if how == DOES_NOT_START:
        sys.exit("no")
    with channel.makefile("rw", encoding="utf-8") as lines:
        print("ready", file=lines, flush=True)
        for order in lines:
            key = CallKey.from_task_id(order.strip())
            if key == DIE:
                os.kill(os.getpid(), signal.SIGKILL)
            if key.call_id == HANG.call_id:
                time.sleep(60)
            print("what?" if key == BABBLE else "answered", file=lines, flush=True)


def main(file: Path, how: str = "") -> None:
    """Run the fork server."""
    serve_forks(partial(run, file, how))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
