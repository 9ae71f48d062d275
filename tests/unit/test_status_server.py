"""The small HTTP server of a process is bounded and says what its routes say."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection

import pytest
import structlog

from callgate.domain.errors import ConfigurationError
from devkit.servers.ports import free_port
from worker import status_server
from worker.status_server import CONNECTIONS_MAX, Answer, StatusServer


def broken() -> Answer:
    raise RuntimeError("a route that fails")


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    routes = {
        "/live": lambda: Answer.of_json({"is_live": True}),
        "/ready": lambda: Answer.of_json({"why": "no ledger"}, HTTPStatus.SERVICE_UNAVAILABLE),
        "/broken": broken,
    }
    server = StatusServer(routes, address="127.0.0.1", port=number)
    server.start()
    yield number
    server.stop()


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def test_a_route_answers_with_its_status_and_json(port: int) -> None:
    assert ask(port, "/live") == (200, b'{\n  "is_live": true\n}\n')
    status, body = ask(port, "/ready?verbose=1")
    assert (status, b"no ledger" in body) == (503, True)


def test_other_paths_and_methods_are_refused(port: int) -> None:
    assert ask(port, "/other")[0] == 404
    assert ask(port, "/live", "POST")[0] == 405
    assert ask(port, "/live", "HEAD") == (200, b"")


def test_a_route_that_raises_answers_500(port: int) -> None:
    with structlog.testing.capture_logs() as lines:
        assert ask(port, "/broken")[0] == 500
    assert [line["event"] for line in lines] == ["status_answer.failed"]
    assert ask(port, "/live")[0] == 200


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000])
def test_what_is_no_request_is_refused(port: int, sent: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert ask(port, "/live")[0] == 200


def test_a_slow_sender_is_cut_off_and_holds_nobody_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_server, "CONNECTION_MAX_S", 0.3)
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"GET /live HTTP")
        assert ask(port, "/live")[0] == 200
        assert connection.recv(100) == b""


def test_connections_above_the_bound_are_closed(port: int) -> None:
    with ExitStack() as held:
        for _ in range(CONNECTIONS_MAX):
            held.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=10)))
        assert not _answers(port)
    deadline = time.monotonic() + 10
    while not _answers(port):
        assert time.monotonic() < deadline


def test_a_port_that_is_taken_costs_only_a_line(port: int) -> None:
    second = StatusServer({}, address="127.0.0.1", port=port)
    with structlog.testing.capture_logs() as lines:
        second.start()
    second.stop()
    assert [line["event"] for line in lines] == ["status_address.refused"]
    assert ask(port, "/live")[0] == 200


def test_an_address_of_another_machine_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="STATUS_ADDRESS"):
        StatusServer({}, address="192.0.2.1", port=free_port()).start()


def test_port_0_listens_nowhere() -> None:
    server = StatusServer({}, address="192.0.2.1", port=0)
    server.start()
    server.stop()


def _answers(port: int) -> bool:
    try:
        return ask(port, "/live")[0] == 200
    except OSError:
        return False
