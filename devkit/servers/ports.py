"""Choose loopback ports, and start servers on them."""

import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devkit.servers.server import DevServersError, Program, Server, ServerFailed, private

LOOPBACK = "127.0.0.1"

# Below the ports that Linux uses for outgoing connections (32768 and up, man 7 ip). With one of those, a client that
# reconnects to a stopped server can get the port of the server itself, and the server cannot start again.
PORTS = range(20_000, 32_000)
PORT_TRIES_MAX = 100
PORT_RACES_MAX = 3

# The messages of PostgreSQL and Valkey, and of llama.cpp, if another process uses the port.
PORT_TAKEN = re.compile("already in use|couldn't bind")


def free_port() -> int:
    """Return a loopback port that is free now. Another process may take it before it is used."""
    # Not the seeded generator: programs with the same seed would choose the same ports.
    for port in secrets.SystemRandom().sample(PORTS, PORT_TRIES_MAX):
        if _is_free(port):
            return port
    raise DevServersError(f"found no free port in {PORT_TRIES_MAX} tries within {PORTS}")


@contextmanager
def server_on_free_port(
    program: Callable[[int], Program], remembered: Path
) -> Iterator[tuple[Server, int]]:
    """Run a server, on its last port if that is free, so that its URL stays valid."""
    server, port = _start(program, remembered)
    with server:
        with open(remembered, "w", opener=private) as file:
            file.write(str(port))
        yield server, port


def _start(program: Callable[[int], Program], remembered: Path) -> tuple[Server, int]:
    races_left = PORT_RACES_MAX
    port = _last_port(remembered) or free_port()
    while True:
        server = Server(program(port))
        try:
            server.start()
        except ServerFailed as exc:
            server.close()
            races_left -= 1
            if races_left == 0 or not PORT_TAKEN.search(exc.log_tail):
                raise
            port = free_port()
        else:
            return server, port


def _last_port(remembered: Path) -> int | None:
    with suppress(FileNotFoundError, ValueError):
        port = int(remembered.read_text())
        return port if port in PORTS else None
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        # The servers set this too: closed connections of an earlier server do not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        return True
    return False
