"""A Flower process under test, forged events for it, and requests to it."""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote

from celery.events.event import get_exchange
from kombu import Producer

from devkit.servers.ports import free_port
from tests.support.deployment import Deployment, Process, until

AUTH = "callgate:the right one"
HTML = "<img src=x onerror=document.title='ran'><script>document.title='ran'</script>"


@dataclass(frozen=True)
class Answer:
    """An answer of Flower."""

    status: int
    headers: Message
    body: str


@dataclass(frozen=True)
class FlowerUnderTest:
    """A Flower process."""

    port: int
    process: Process
    deployment: Deployment

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        auth: str | bytes | None = AUTH,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        """Send one request, from a loopback address of choice."""
        said = dict(headers)
        if auth is not None:
            word = auth.encode() if isinstance(auth, str) else auth
            said["Authorization"] = "Basic " + base64.b64encode(word).decode()
        line = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(source, 0)
        )
        with closing(line):
            line.request(method, path, body=b"" if method != "GET" else None, headers=said)
            answer = line.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers that Flower shows, by name."""
        shown = json.loads(self.ask("/workers?json=1").body)["data"]
        return {worker["hostname"]: worker for worker in shown}

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the tasks that Flower shows, by id."""
        found: dict[str, dict[str, Any]] = json.loads(self.ask("/api/tasks").body)
        return found

    def until_it_receives(self) -> None:
        """Wait until Flower reads events. It answers requests before that, and events are not kept for it."""
        first = f"first@{time.monotonic_ns()}"

        def is_known() -> bool:
            publish(self.deployment, [heartbeat(hostname=first)])
            return first in self.workers()

        until(is_known, 30.0, self.process.output)

    def until_it_has_received_all(self) -> None:
        """Wait until all published events are processed: publish one more, and wait for it."""
        last = f"last@{time.monotonic_ns()}"
        publish(self.deployment, [heartbeat(hostname=last)])
        until(lambda: last in self.workers(), 30.0, self.process.output)


@contextmanager
def a_flower(deployment: Deployment, *options: str, **changes: str) -> Iterator[FlowerUnderTest]:
    """Run Flower until the block ends."""
    port = free_port()
    process = deployment.start(
        "flower",
        [sys.executable, "-m", "callgate", "flower", *options],
        CALLGATE_WORKER__FLOWER_PORT=str(port),
        **{"CALLGATE_WORKER__FLOWER_BASIC_AUTH": AUTH, **changes},
    )
    flower = FlowerUnderTest(port, process, deployment)

    prefix = options[options.index("--url_prefix") + 1] if "--url_prefix" in options else ""

    def is_up() -> bool:
        try:
            return flower.ask(f"/{prefix}/healthcheck".replace("//", "/")).status == 200
        except OSError:
            return False

    until(is_up, 60.0, process.output)
    try:
        yield flower
    finally:
        process.kill()


def heartbeat(**fields: Any) -> dict[str, Any]:
    """Return an event like that of a worker, with some changes."""
    return {
        "type": "worker-heartbeat",
        "hostname": "plausible@host",
        "timestamp": time.time(),
        "utcoffset": time.timezone // 3_600,
        "clock": 1,
        "pid": 1,
        "freq": 2.0,
        "active": 0,
        "processed": 0,
        "loadavg": [0.1, 0.2, 0.3],
        "sw_ident": "py-celery",
        "sw_ver": "5.7.0",
        "sw_sys": "Linux",
        **fields,
    }


def task_event(kind: str = "received", **fields: Any) -> dict[str, Any]:
    """Return an event of a task, with some changes."""
    defaults = ("type", "hostname", "timestamp", "utcoffset", "clock", "pid")
    sent = {name: value for name, value in heartbeat().items() if name in defaults}
    named = {"name": "pipeline.store", "args": "()", "kwargs": "{}", "retries": 0}
    return {
        **sent,
        "type": f"task-{kind}",
        "uuid": "0e0e0e0e",
        **(named if kind == "received" else {}),
        **fields,
    }


def publish(deployment: Deployment, events: list[Any]) -> None:
    """Publish events, as every client of the broker can."""
    app = deployment.client.celery_app
    with app.connection_for_write() as connection, closing(connection.channel()) as channel:
        producer = Producer(channel, get_exchange(connection), serializer="json")
        for event in events:
            producer.publish(event, routing_key="worker.heartbeat")


def task_page(uuid: str) -> str:
    """Return the path of the page of a task."""
    return f"/task/{quote(uuid)}"
