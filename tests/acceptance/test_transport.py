"""A worker that cannot send posts nothing; one that could never send does not start."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from callgate.client import Handle
from callgate.domain.calls import WaitReason
from callgate.domain.reports import EndReason
from tests.support.certificates import self_signed
from tests.support.deployment import CATALOGUE, Deployment, until, worker_argv

PATIENCE_S = 30.0
STUBBORN = CATALOGUE.replace("[default]\n", "[default]\nattempts_max = {attempts_max}\n")


@pytest.fixture
def hanging_up() -> Iterator[socket.socket]:
    """A proxy that closes the connection after the CONNECT line."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                stream.readline()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(PATIENCE_S)


def catalogue(deployment: Deployment, base_url: str, attempts_max: int) -> str:
    """The worker's own catalogue."""
    file = deployment.folder / "transport.toml"
    file.write_text(STUBBORN.format(base_url=base_url, attempts_max=attempts_max))
    return str(file)


def wait_reason(deployment: Deployment, handle: Handle) -> WaitReason | None:
    """Why a call waits."""
    (view,) = deployment.client.ledger.read([handle.key])
    assert view is not None
    return view.wait_reason


def test_a_proxy_that_hangs_up_at_connect_costs_nothing(
    deployment: Deployment, hanging_up: socket.socket
) -> None:
    """Three attempts fail and post 0. Then the breaker opens, and the call waits without a hold."""
    deployment.stop_workers()
    org = deployment.org()
    worker = deployment.worker(
        CALLGATE_CATALOGUE=catalogue(deployment, "https://provider.invalid/v1", 100),
        HTTPS_PROXY=f"http://127.0.0.1:{hanging_up.getsockname()[1]}",
        NO_PROXY="",
        no_proxy="",
    )

    handle = deployment.client.submit(deployment.request(org))
    until(lambda: wait_reason(deployment, handle) is WaitReason.PROVIDER)

    attempts = deployment.attempts(org)
    assert [(row.status, row.posted_nano_usd) for row in attempts] == [("failed", 0)] * 3
    assert all("connection_failed" in row.error_json for row in attempts)
    (budget,) = deployment.client.operations.budgets(org)
    assert (budget.spent_nano_usd, budget.reserved_nano_usd) == (0, 0)
    worker.kill()
    deployment.client.operations.end([handle.key], code=EndReason.CANCELLED, message="the end")


def test_a_certificate_file_that_vanishes_costs_nothing(
    deployment: Deployment, tmp_path: Path
) -> None:
    """It existed when the worker started. When it is back, the call continues."""
    deployment.stop_workers()
    org, file = deployment.org(), self_signed(tmp_path, "localhost")
    worker = deployment.worker(
        CALLGATE_CATALOGUE=catalogue(deployment, deployment.provider.base_url, 100),
        SSL_CERT_FILE=str(file),
    )
    file.rename(tmp_path / "elsewhere.pem")

    handle = deployment.client.submit(deployment.request(org))
    until(lambda: any(row.status == "failed" for row in deployment.attempts(org)))
    (tmp_path / "elsewhere.pem").rename(file)
    handle.get(timeout=PATIENCE_S)

    *failed, succeeded = deployment.attempts(org)
    assert {(row.status, row.posted_nano_usd) for row in failed} == {("failed", 0)}
    assert succeeded.status == "succeeded"
    worker.kill()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
        ("ALL_PROXY", "socks://bob:hunter2@127.0.0.1:9/"),
        ("SSLKEYLOGFILE", "/nonexistent/keys"),
    ],
)
def test_a_worker_that_could_never_send_does_not_start(
    deployment: Deployment, variable: str, value: str
) -> None:
    """One line names the variable, and shows no password."""
    environ = {"no_proxy": "", "NO_PROXY": "", variable: value}

    worker = deployment.start("refused", worker_argv(), **environ)

    assert worker.wait() == 2
    (line,) = worker.output().splitlines()
    assert variable in line
    assert "hunter2" not in line
