"""A receiver of webhook messages that a test scripts, and a check of signatures that shares no code with callgate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET_BYTES = bytes(range(7, 39))
SECRET = "whsec_" + base64.b64encode(SECRET_BYTES).decode()
NEVER_S = 60.0
HOLD = 0
"""Instead of a status: read the message, and never answer."""


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        """What the message is about."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data

    def is_genuine(self) -> bool:
        """True if one of the signatures is that of the secret."""
        signed = f"{self.message_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        mac = hmac.new(SECRET_BYTES, signed, hashlib.sha256).digest()
        expected = "v1," + base64.b64encode(mac).decode()
        return expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """Answers 204, or first what `script` says: to all messages, or only to those about one kind of alert."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    scripted_kind: str | None = None
    received: list[Received] = field(default_factory=list)
    retry_after: str | None = None
    """The header of answers that the script names."""
    end: threading.Event = field(default_factory=threading.Event)

    def of(self, alert_id: int) -> list[Received]:
        """The messages about one alert."""
        return [message for message in list(self.received) if message.data["alert_id"] == alert_id]

    def status_for(self, message: Received) -> int:
        """Take the next status of the script, if it is for this message."""
        is_scripted = self.scripted_kind is None or self.scripted_kind == message.data["kind"]
        return self.script.pop(0) if self.script and is_scripted else 204


@contextmanager
def a_receiver() -> Iterator[Receiver]:
    """Run a receiver on loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            message = Received(self.path, headers, body)
            status = receiver.status_for(message)
            receiver.received.append(message)
            if status == HOLD:
                receiver.end.wait(NEVER_S)
                return
            self.send_response(status)
            if status != 204 and receiver.retry_after is not None:
                self.send_header("retry-after", receiver.retry_after)
            if 300 <= status < 400:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/alerts?token=in-the-url"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.end.set()
        server.shutdown()
        server.server_close()
        thread.join()
