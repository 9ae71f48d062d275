"""`rediss://`: every process speaks TLS to the broker, and only to one whose certificate it can verify."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import self_signed

PUBLISH = """
import sys
from uuid import UUID
from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.queue import CeleryQueue
from callgate.domain.errors import BrokerUnavailable
from callgate.domain.ledger import CallKey

app = build_app(sys.argv[1], timeout_s=1)
app.conf.broker_transport = sys.argv[2] or None
try:
    CeleryQueue(app, timeout_s=1).publish_calls([CallKey(UUID(int=1), 1)])
except BrokerUnavailable:
    pass
"""
TRANSPORTS = {"client": "", "worker": "worker.celery_ext.redis_transport:Transport"}


class Ear:
    """A broker that only listens: what it hears after a handshake, or that there was none."""

    def __init__(self, folder: Path) -> None:
        self.certificate = self_signed(folder, "localhost")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.certificate)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as secret:
                    self.heard.append("commands" if secret.recv(1) else "nothing")
            except OSError as error:
                self.heard.append(getattr(error, "reason", None) or type(error).__name__)


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    """A listener with a certificate that no authority has signed."""
    ear = Ear(tmp_path)
    yield ear
    ear.close()


def publish(ear: Ear, transport: str, options: str = "") -> list[str]:
    """Publish in a separate process, because kombu shares connections; return what the listener received."""
    url = f"rediss://localhost:{ear.port}/0{options}"
    subprocess.run([sys.executable, "-c", PUBLISH, url, transport], check=True, timeout=60)  # noqa: S603
    assert ear.heard
    return ear.heard


@pytest.mark.parametrize("process", TRANSPORTS)
def test_an_unverified_certificate_is_refused(ear: Ear, process: str) -> None:
    """The broker receives not one command, with TLS or without."""
    heard = publish(ear, TRANSPORTS[process])

    assert set(heard) == {"TLSV1_ALERT_UNKNOWN_CA"}


@pytest.mark.parametrize("process", TRANSPORTS)
def test_a_trusted_certificate_is_accepted(ear: Ear, process: str) -> None:
    """`ssl_ca_certs` in the URL names the authority."""
    heard = publish(ear, TRANSPORTS[process], f"?ssl_ca_certs={ear.certificate}")

    assert "commands" in heard
