"""
Somebody with the broker's password, and messages that are small until they are looked at, or not small at all.

The broker is a server with its own defaults: it takes items of up to 512 MB. Memory is what the kernel says a process
has had at most since the attack began, so that this file itself needs little.
"""

from __future__ import annotations

import base64
import bz2
import json
import re
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import pytest

from callgate import Client
from callgate.adapters.broker.app import CALL_QUEUE, LOG_QUEUE
from devkit.servers.ports import free_port
from tests.security.conftest import WORKER_DATA_MAX_BYTES
from tests.support.deployment import START_TIMEOUT_S, Deployment, Process, until
from tests.support.valkey import Valkey

pytestmark = pytest.mark.long
PATIENCE_S = 30.0
MEMORY_MAX_BYTES = 96 * 2**20
"""What an attack may cost: sixteen items of a megabyte, read twice, and what the work beside it needs."""
ASKER_MAX_BYTES = 256 * 2**20
"""What a doctor needs is 120 MB."""
PATTERNS_MAX_S = 10.0
"""A call beside three hundred patterns, on a busy machine; to compile them takes 20 s and more."""
PIDBOX, EVENTS = "/0.celery.pidbox", "/0.celeryev/worker.heartbeat"
BOMB = bz2.compress(bytes(100 * 2**20)) * 19
"""About 2 kB, which kombu would make 2 GB of."""
LONG_MIB = 64
DENSE = b"[" + b"[]," * 349_000 + b"[]]"
"""A megabyte of JSON, which is thirty of objects."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server without limits on sizes."""
    server = Valkey(tmp_path_factory.mktemp("broker"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def client(standing: Deployment, broker: Valkey) -> Iterator[Client]:
    """A client that publishes there."""
    with standing.open_client(broker_url=broker.url) as client:
        yield client


@pytest.fixture(scope="module")
def victim(standing: Deployment, broker: Valkey) -> Process:
    """A worker on it, which survives this file."""
    process = standing.worker(CALLGATE_BROKER_URL=broker.url)
    limit = (WORKER_DATA_MAX_BYTES, WORKER_DATA_MAX_BYTES)
    resource.prlimit(process.pid, resource.RLIMIT_DATA, limit)
    return process


def message(body: bytes, **more: Any) -> bytes:
    """A message in kombu's envelope, with `more` parts."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "callgate.call", "id": str(uuid4()), "lang": "py"},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": CALL_QUEUE},
                "delivery_tag": str(uuid4()),
            },
            **more,
        }
    ).encode()


INFLATED = {
    "codec": message(BOMB, **{"content-encoding": "bz2", "content-type": "application/data"}),
    "compression": message(BOMB, headers={"compression": "bzip2", "task": "callgate.call"}),
}


def nested(depth: int) -> bytes:
    """As deep as the interpreter can read; a few frames deeper in the stack it is too deep to be written."""
    return b"[" * depth + b"]" * depth


def deep_message(depth: int, task: bytes) -> list[bytes]:
    """A message nested in its header, its arguments or its callbacks."""
    named = {"task": task.decode(), "id": "x", "lang": "py", "deep": "@"}
    return [
        message(b"[[], {}, {}]", headers=named).replace(b'"@"', nested(depth)),
        message(b"[%b, {}, {}]" % nested(depth), headers={**named, "deep": 1}),
        message(b"[[], {}, %b]" % nested(depth), headers={**named, "deep": 1}),
    ]


def most_memory(process: Process) -> int:
    """Its peak memory in bytes since `forget_peak`."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found) * 1024


def forget_peak(process: Process) -> int:
    """Reset the peak; return the bytes in use now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return most_memory(process)


def push_long(broker: Valkey, command: str, key: str) -> None:
    """Have the server itself build a long string, and push or publish it."""
    script = f"return redis.call('{command}', KEYS[1], string.rep(ARGV[1], ARGV[2]))"
    broker.client.eval(script, 1, key, "x" * 2**20, LONG_MIB)


@pytest.mark.parametrize("attack", ["codec", "compression", "long items", "dense items", "a flood"])
def test_a_queue_item_does_not_fill_a_worker(
    deployment: Deployment, client: Client, broker: Valkey, victim: Process, attack: str
) -> None:
    """It is taken once and diverted; the calls behind it run."""
    before = forget_peak(victim)
    for queue in (CALL_QUEUE, LOG_QUEUE):
        if attack == "long items":
            push_long(broker, "LPUSH", queue)
        elif attack == "dense items":
            broker.client.lpush(queue, *[DENSE] * 20, *[message(DENSE)] * 20)
        elif attack == "a flood":
            for _ in range(20):
                broker.client.lpush(queue, *[b"x" * 60_000] * 100)
        else:
            broker.client.lpush(queue, *[INFLATED[attack]] * 3)
    handles = client.submit_many([deployment.request(deployment.org()) for _ in range(10)])

    assert [handle.get(timeout=PATIENCE_S).text for handle in handles] == ["ok"] * 10
    until(lambda: broker.ready(CALL_QUEUE) + broker.ready(LOG_QUEUE) == 0)
    assert most_memory(victim) - before < MEMORY_MAX_BYTES
    assert victim.is_alive()


def test_a_deeply_nested_message_ends_no_worker(
    deployment: Deployment, client: Client, broker: Valkey, victim: Process
) -> None:
    """Two kB: it could be read, and not written for the sink, in one worker after the other."""
    for queue in (CALL_QUEUE, LOG_QUEUE):
        for depth in range(900, 996, 2):
            for task in (b"nobody", b"callgate.call", b"callgate.log_call"):
                broker.client.lpush(queue, *deep_message(depth, task))
            broker.client.publish(PIDBOX, message(b'{"method": "ping", "x": %b}' % nested(depth)))
    handle = client.submit(deployment.request(deployment.org()))

    assert handle.get(timeout=PATIENCE_S).text == "ok"
    until(lambda: broker.ready(CALL_QUEUE) + broker.ready(LOG_QUEUE) == 0)
    assert victim.is_alive()


@pytest.mark.parametrize("attack", ["codec", "compression", "long", "dense", "a burst"])
def test_a_broadcast_does_not_fill_a_worker(
    deployment: Deployment, client: Client, broker: Valkey, victim: Process, attack: str
) -> None:
    """The worker drops it, answers inspections and runs calls."""
    before = forget_peak(victim)
    if attack == "long":
        push_long(broker, "PUBLISH", PIDBOX)
    elif attack == "dense":
        for _ in range(10):
            broker.client.publish(PIDBOX, DENSE)
            broker.client.publish(PIDBOX, message(DENSE, headers={}))
    elif attack == "a burst":
        with broker.client.pipeline(transaction=False) as burst:
            for _ in range(20_000):
                burst.publish(
                    PIDBOX, message(b'{"method": "shutdown", "x": "' + b"x" * 900 + b'"}')
                )
            burst.execute()
    else:
        assert broker.client.publish(PIDBOX, INFLATED[attack]) == 1
    handle = client.submit(deployment.request(deployment.org()))

    assert handle.get(timeout=PATIENCE_S).text == "ok"
    until(lambda: client.celery_app.control.ping(timeout=2, limit=1))
    assert most_memory(victim) - before < MEMORY_MAX_BYTES
    assert victim.is_alive()


def test_undecodable_broadcasts_are_not_stored(
    client: Client, broker: Valkey, victim: Process
) -> None:
    """They would wait for the ledger, each with its megabyte, without a limit."""
    before = forget_peak(victim)
    unreadable = message(b"?" * 700_000)
    for _ in range(300):
        broker.client.publish(PIDBOX, unreadable)

    until(lambda: client.celery_app.control.ping(timeout=2, limit=1), PATIENCE_S)
    assert most_memory(victim) - before < MEMORY_MAX_BYTES
    assert "broadcast.discarded" in victim.output()
    assert "pidbox': DecodeError" not in victim.output()


def test_patterns_in_inspections_do_not_delay_a_worker(
    deployment: Deployment, client: Client, broker: Valkey, victim: Process
) -> None:
    """Each takes a tenth of a second to compile, and is cached."""
    for number in range(300):
        pattern = f"{number}" + "*a[b-d]" * 1_500
        asked = {"method": "ping", "arguments": {}, "pattern": pattern, "matcher": "glob"}
        broker.client.publish(PIDBOX, message(json.dumps(asked).encode(), headers={}))
    begun = time.monotonic()
    handle = client.submit(deployment.request(deployment.org()))

    assert handle.get(timeout=PATIENCE_S).text == "ok"
    assert time.monotonic() - begun < PATTERNS_MAX_S
    assert victim.is_alive()


@pytest.fixture(scope="module")
def flower(standing: Deployment, broker: Valkey) -> Iterator[tuple[Process, int]]:
    """Flower, which receives events, and its port."""
    port = free_port()
    process = standing.python(
        "flower",
        ["-m", "callgate", "flower"],
        CALLGATE_BROKER_URL=broker.url,
        CALLGATE_WORKER__FLOWER_PORT=str(port),
    )
    until(
        lambda: broker.client.publish(EVENTS, "") or not process.is_alive(),
        START_TIMEOUT_S,
        process.output,
    )
    yield process, port
    process.kill()


def event(worker: str) -> bytes:
    """The event of a worker that starts."""
    said = {
        "type": "worker-online",
        "hostname": worker,
        "timestamp": time.time(),
        "clock": 1,
        "pid": 1,
    }
    return message(json.dumps({**said, "utcoffset": 0, "freq": 2}).encode(), headers={})


@pytest.mark.parametrize("attack", ["codec", "compression", "long", "dense"])
def test_events_do_not_fill_flower(
    broker: Valkey, flower: tuple[Process, int], attack: str
) -> None:
    """It still sees the next worker."""
    process, port = flower
    before = forget_peak(process)

    if attack == "long":
        push_long(broker, "PUBLISH", EVENTS)
    elif attack == "dense":
        for _ in range(10):
            broker.client.publish(EVENTS, DENSE)
    else:
        assert broker.client.publish(EVENTS, INFLATED[attack]) == 1

    def knows_the_next() -> bool:
        broker.client.publish(EVENTS, event("next@host"))
        try:
            with urlopen(f"http://127.0.0.1:{port}/workers", timeout=5) as page:
                return b"next@host" in page.read()
        except URLError:
            return False

    until(knows_the_next)
    assert most_memory(process) - before < MEMORY_MAX_BYTES
    assert process.is_alive()


@pytest.mark.parametrize(
    "attacks", [(INFLATED["codec"], INFLATED["compression"]), (DENSE,)], ids=["inflated", "dense"]
)
def test_forged_replies_do_not_fill_the_doctor(
    deployment: Deployment, broker: Valkey, victim: Process, attacks: tuple[bytes, ...]
) -> None:
    """Any user of the broker sees where the doctor waits for replies."""
    table = "_kombu.binding.reply.celery.pidbox"
    known = broker.client.smembers(table)
    doctor = deployment.python(
        "doctor", ["-m", "callgate", "doctor", "--json"], CALLGATE_BROKER_URL=broker.url
    )
    peaks = [0]
    while doctor.is_alive():
        for member in broker.client.smembers(table) - known:
            broker.client.lpush(str(member).split("\x06\x16")[-1], *attacks)
        with suppress(OSError, ValueError):
            peaks.append(most_memory(doctor))

    # Its log, which says what was refused, comes before.
    checks = json.loads(doctor.output()[doctor.output().index("[\n") :])
    statuses = {check["name"]: check["status"] for check in checks}
    assert max(peaks) < ASKER_MAX_BYTES
    assert statuses["consumers"] == "ok", checks
