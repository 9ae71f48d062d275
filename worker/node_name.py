"""
The name of this worker in Celery and Flower: `callgate@host`, and `callgate-2@host` for a second one on the machine.

Two workers with one name would look like one: each of Flower's rows, and each answer to `inspect`, would be now of one
and now of the other. A number is free again when its process ends, however it ends, so restarts bring no new names.
"""

from __future__ import annotations

import os
import socket

NUMBERS_MAX = 256
"""With more workers on a machine, the id of the process takes the place of the number."""
_claims: list[socket.socket] = []


def node_name(name: str | None) -> str:
    """The node name of this process; `name` is what the operator wants before the @, who then keeps names apart."""
    return f"{name or _free_name()}@{socket.gethostname()}"


def _free_name() -> str:
    for number in range(1, NUMBERS_MAX + 1):
        if _claim(number):
            return "callgate" if number == 1 else f"callgate-{number}"
    return f"callgate-{os.getpid()}"


def _claim(number: int) -> bool:
    """Take a number until this process ends, by a socket in Linux's abstract namespace: it leaves no file behind."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0callgate-worker-{number}")
    except OSError:
        # Another worker has it, or this is not Linux.
        claim.close()
        return False
    _claims.append(claim)
    return True
