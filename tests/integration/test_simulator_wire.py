"""The connections of the simulator, its counts, and the life of its process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devkit.simulator.simulator import ATTEMPT_HEADER, Kind, Rule, Simulator, SimulatorFailed, Step
from tests.support.simulator_client import only
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
CONDITION_TIMEOUT_S = 15.0


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
    """Return all bytes that arrive, and whether a reset followed."""
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        return received, True
    return received, False


def test_a_request_counts_once_its_head_was_read(provider: Simulator) -> None:
    """A request without its body is counted too."""
    with connect(provider) as connection:
        connection.sendall(raw_head(content_length=100) + b"{")

        until(lambda: provider.counts().total == 1)
        assert provider.counts().by_fault == {"unread": 1}

    until(lambda: provider.counts().in_flight == 0)
    assert provider.requests().records[0].attempt_id == "raw-1"


def test_a_client_that_leaves_is_counted_and_its_answer_given_up(provider: Simulator) -> None:
    """A request is counted although its client was killed while it waited."""
    provider.script(only(Step(latency_s=3_600)))
    with connect(provider) as connection:
        connection.sendall(raw_request())
        until(lambda: provider.counts().by_fault == {"ok": 1})

    until(lambda: provider.counts().in_flight == 0)
    (record,) = provider.requests().records
    assert record.status is None


def test_a_connection_serves_one_request_after_another(provider: Simulator) -> None:
    """Connections are kept alive, also after errors."""
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
    """A hang ends, also for a client without a timeout."""
    provider.script(only(Step(kind=Kind.HANG, hang_s=0.1)))
    with connect(provider) as connection:
        connection.sendall(raw_request())

        assert read_to_the_end(connection) == (b"", True)


def test_a_thousand_requests_are_in_flight_together(provider: Simulator) -> None:
    """Neither the backlog nor the usual limit of open files limits the number of connections."""
    provider.script(only(Step(kind=Kind.HANG)))
    connections = []
    try:
        for _ in range(1_000):
            connections.append(connect(provider))
            connections[-1].sendall(raw_request())

        until(lambda: provider.counts().in_flight_max == 1_000)
    finally:
        for connection in connections:
            connection.close()


def test_the_simulator_ends_with_its_block() -> None:
    """Leaving the block ends the process without output, also with requests in flight."""
    with Simulator() as provider:
        provider.script(only(Step(kind=Kind.HANG)))
        connection = connect(provider)
        connection.sendall(raw_request())
        until(lambda: provider.counts().in_flight == 1)
        pid = provider.pid

    with connection:
        assert read_to_the_end(connection)[0] == b""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SimulatorFailed):
        provider.counts()


def test_the_simulator_dies_with_an_owner_that_was_killed() -> None:
    """The owner cannot clean up after SIGKILL, and still no process is left."""
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

    until(is_gone)


def test_the_command_line_serves_a_script_from_a_file(tmp_path: Path) -> None:
    """The command prints its port and writes it to a file, and ends at SIGTERM."""
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
