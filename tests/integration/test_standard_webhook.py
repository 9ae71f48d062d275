"""Messages over real sockets: what counts as accepted, and that nothing takes longer than it may."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from callgate.adapters.standard_webhook import StandardWebhook
from callgate.domain.errors import WebhookFailed
from tests.support.webhook_receiver import HOLD, SECRET_BYTES, Receiver, a_receiver

TIMEOUT_S = 1.0
NEW_KEY = bytes(range(24))
KEYS = (NEW_KEY, SECRET_BYTES)
"""While the secret changes: the receiver knows the old one only."""
BODY = b'{"data": {"alert_id": 1}}'


def send(url: str, times: int = 1) -> None:
    """Send a message."""

    async def run() -> None:
        webhook = StandardWebhook(url, KEYS, timeout_s=TIMEOUT_S)
        try:
            for n in range(times):
                await webhook.send(f"msg_{n}", BODY)
        finally:
            await webhook.aclose()

    asyncio.run(run())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as receiver:
        yield receiver


@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_success_accepts_a_message(receiver: Receiver, status: int) -> None:
    receiver.script.append(status)
    send(receiver.url, times=2)

    assert [message.message_id for message in receiver.received] == ["msg_0", "msg_1"]
    assert all(message.is_genuine() and message.body == BODY for message in receiver.received)


@pytest.mark.parametrize("status", [301, 307, 308, 400, 410, 500])
def test_another_status_does_not_and_no_redirect_is_followed(
    receiver: Receiver, status: int
) -> None:
    receiver.script.append(status)
    with pytest.raises(WebhookFailed, match=f"^HTTP {status}$"):
        send(receiver.url)

    assert len(receiver.received) == 1


@pytest.mark.parametrize(("header", "asked_s"), [("120", 120.0), ("soon", None), (None, None)])
def test_a_receiver_says_when_to_try_again(
    receiver: Receiver, header: str | None, asked_s: float | None
) -> None:
    receiver.script.append(429)
    receiver.retry_after = header
    with pytest.raises(WebhookFailed, match=r"^HTTP 429$") as failed:
        send(receiver.url)

    assert failed.value.retry_after_s == asked_s


def test_a_receiver_that_never_answers_is_left(receiver: Receiver) -> None:
    receiver.script.append(HOLD)
    with pytest.raises(WebhookFailed, match="Timeout"):
        send(receiver.url)


@contextmanager
def a_dripping_server() -> Iterator[str]:
    """Sends a byte of its status line each time before a timeout between two reads would end the wait."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        is_over = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    while not is_over.wait(TIMEOUT_S / 4):
                        connection.sendall(b"H")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        is_over.set()
        thread.join()


def test_an_answer_byte_by_byte_takes_no_longer() -> None:
    began_at = time.monotonic()
    with a_dripping_server() as url, pytest.raises(WebhookFailed):
        send(url)

    assert time.monotonic() - began_at < 5 * TIMEOUT_S


def test_a_failure_never_quotes_the_url() -> None:
    for url in ("http://127.0.0.1:1/secret", "http://nowhere.invalid/secret"):
        with pytest.raises(WebhookFailed) as raised:
            send(url)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None
