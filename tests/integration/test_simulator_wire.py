"""What the simulator does to a connection, what it counts, and how its process lives and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devkit.simulator.simulator import ATTEMPT_HEADER, Kind, Rule, Simulator, SimulatorFailed, Step

ROOT = Path(__file__).parents[2]
CONDITION_TIMEOUT_S = 15.0


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    """One running simulator for all tests of this module."""
    with Simulator() as running:
        yield running


@pytest.fixture
def provider(process: Simulator) -> Simulator:
    """The simulator as freshly started: no rules, no requests."""
    process.reset()
    return process


def only(step: Step) -> list[Rule | dict[str, Any]]:
    """Return a script that answers everything with one step."""
    return [Rule(reply=[step])]


def eventually(condition: Callable[[], bool]) -> bool:
    """Poll a condition until it holds; False when it does not within the bound."""
    deadline_s = time.monotonic() + CONDITION_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


def raw_request() -> bytes:
    """Return the bytes of one request."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    return raw_head(len(body)) + body


def raw_head(content_length: int) -> bytes:
    """Return a request's head that promises `content_length` bytes."""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: any\r\n{ATTEMPT_HEADER}: raw-1\r\n"
        f"Content-Length: {content_length}\r\n\r\n"
    ).encode()


def connect(provider: Simulator) -> socket.socket:
    """Open a connection to the simulator."""
    port = int(provider.base_url.split(":")[2].split("/")[0])
    return socket.create_connection(("127.0.0.1", port), timeout=CONDITION_TIMEOUT_S)


def read_to_the_end(connection: socket.socket) -> tuple[bytes, bool]:
    """Return everything that arrives, and whether it ended in a reset."""
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        return received, True
    return received, False


def test_a_request_counts_once_its_head_was_read(provider: Simulator) -> None:
    """A request whose body never comes has arrived all the same."""
    with connect(provider) as connection:
        connection.sendall(raw_head(content_length=100) + b"{")

        assert eventually(lambda: provider.counts().total == 1)
        assert provider.counts().by_fault == {"unread": 1}

    assert eventually(lambda: provider.counts().in_flight == 0)
    assert provider.requests().records[0].attempt_id == "raw-1"


def test_a_client_that_leaves_is_counted_and_its_answer_given_up(provider: Simulator) -> None:
    """The count keeps a request whose client was killed while it waited."""
    provider.script(only(Step(latency_s=3_600)))
    with connect(provider) as connection:
        connection.sendall(raw_request())
        assert eventually(lambda: provider.counts().by_fault == {"ok": 1})

    assert eventually(lambda: provider.counts().in_flight == 0)
    (record,) = provider.requests().records
    assert record.status is None


def test_a_connection_serves_one_request_after_another(provider: Simulator) -> None:
    """Connections are kept alive, errors included."""
    provider.script([Rule(reply=[Step(kind=Kind.STATUS, status=500), Step()])])
    statuses = []
    with connect(provider) as connection:
        for _ in range(2):
            connection.sendall(raw_request())
            statuses.append(connection.recv(65_536).split()[1])

    assert statuses == [b"500", b"200"]


def test_a_reset_before_headers_sends_no_byte(provider: Simulator) -> None:
    """The client's socket reads a reset, and nothing before it."""
    provider.script(only(Step(kind=Kind.RESET_BEFORE_HEADERS)))
    with connect(provider) as connection:
        connection.sendall(raw_request())

        assert read_to_the_end(connection) == (b"", True)


def test_a_reset_after_headers_sends_the_head_alone(provider: Simulator) -> None:
    """The client's socket reads a whole head, no byte of body, and a reset."""
    provider.script(only(Step(kind=Kind.RESET_AFTER_HEADERS)))
    with connect(provider) as connection:
        connection.sendall(raw_request())
        received, is_reset = read_to_the_end(connection)

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert (body, is_reset) == (b"", True)


def test_a_truncated_body_ends_without_a_reset(provider: Simulator) -> None:
    """The client's socket reads half of what Content-Length promised, and an orderly end."""
    provider.script(only(Step(kind=Kind.TRUNCATED_BODY)))
    with connect(provider) as connection:
        connection.sendall(raw_request())
        received, is_reset = read_to_the_end(connection)

    head, _, body = received.partition(b"\r\n\r\n")
    promised = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert (len(body), is_reset) == (promised // 2, False)


def test_a_hang_is_reset_when_its_time_is_up(provider: Simulator) -> None:
    """A hang is bounded also for a client without a timeout."""
    provider.script(only(Step(kind=Kind.HANG, hang_s=0.1)))
    with connect(provider) as connection:
        connection.sendall(raw_request())

        assert read_to_the_end(connection) == (b"", True)


def test_a_thousand_requests_are_in_flight_together(provider: Simulator) -> None:
    """Connections are bounded by neither the backlog nor the usual limit of open files."""
    provider.script(only(Step(kind=Kind.HANG)))
    connections = []
    try:
        for _ in range(1_000):
            connections.append(connect(provider))
            connections[-1].sendall(raw_request())

        assert eventually(lambda: provider.counts().in_flight_max == 1_000)
    finally:
        for connection in connections:
            connection.close()


def test_the_simulator_ends_with_its_block() -> None:
    """Leaving the block ends the process, with requests in flight too, and quietly."""
    with Simulator() as provider:
        provider.script(only(Step(kind=Kind.HANG)))
        connection = connect(provider)
        connection.sendall(raw_request())
        assert eventually(lambda: provider.counts().in_flight == 1)
        pid = provider.pid

    with connection:
        assert read_to_the_end(connection)[0] == b""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SimulatorFailed):
        provider.counts()


def test_the_simulator_dies_with_an_owner_that_was_killed() -> None:
    """SIGKILL leaves the owner no chance to clean up, and still nothing is left behind."""
    program = (
        "import time\n"
        "from devkit.simulator.simulator import Simulator\n"
        "with Simulator() as provider:\n"
        "    print(provider.base_url.split(':')[2].split('/')[0], flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen(  # noqa: S603  # The program above.
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner, owner.stdout as output:
        port = int(output.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=CONDITION_TIMEOUT_S):
            owner.send_signal(signal.SIGKILL)

    def is_gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    assert eventually(is_gone)


def test_the_command_line_serves_a_script_from_a_file(tmp_path: Path) -> None:
    """By hand, the simulator says its port on stdout and in a file, and ends at SIGTERM."""
    script = tmp_path / "rules.json"
    script.write_text('[{"reply": [{"kind": "status", "status": 418}]}]')
    ready_file = tmp_path / "ready.json"
    simulator = subprocess.Popen(  # noqa: S603  # Our own module.
        [
            sys.executable,
            "-m",
            "devkit.simulator.simulator",
            "--script",
            script,
            "--ready-file",
            ready_file,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert simulator.stdout is not None
    with simulator, simulator.stdout as output:
        try:
            ready = json.loads(output.readline())
            with socket.create_connection(("127.0.0.1", ready["port"])) as connection:
                connection.sendall(raw_request())
                answer = connection.recv(65_536)
        finally:
            simulator.terminate()

    assert json.loads(ready_file.read_text()) == ready
    assert answer.startswith(b"HTTP/1.1 418")
    assert simulator.returncode == 0
