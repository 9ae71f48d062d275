"""
Somebody with the broker's password: forged, replayed and malformed messages, and broadcasts.

None of them may change money, have a call sent twice, keep one from running, or stop a worker.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from callgate import Client, Handle
from callgate.adapters.broker.app import CALL_QUEUE, EXPRESS_QUEUE, LOG_QUEUE
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.delivery import Published
from callgate.settings import ClientSettings
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment, Process, until
from tests.support.queued_messages import envelope

PATIENCE_S = 30.0
PAST, FUTURE = "2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"


class Silence:
    """`QueuePort` of a client whose messages never arrive."""

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """Lose them."""

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Lose them."""

    def publish_sweep(self, sent_at: object) -> None:
        """Lose it."""

    def publish_links(self, deliveries: Sequence[object]) -> list[Published]:
        """Lose them."""
        return []


@pytest.fixture(scope="module")
def worker(standing: Deployment) -> Process:
    """One worker that survives this file; it sweeps once, and leaves later losses to the attacker."""
    return standing.worker(CALLGATE_WORKER__SWEEP_INTERVAL_S="3600")


@pytest.fixture
def silent(deployment: Deployment) -> Iterator[Client]:
    """A client whose calls stay queued until somebody forges their message."""
    settings = deployment.client.settings
    assert isinstance(settings, ClientSettings)
    with Client(settings, queue=Silence()) as client:
        yield client


@pytest.fixture
def broker(deployment: Deployment, worker: Process) -> Iterator[Redis]:
    """The attacker's connection; at the end all messages are taken and the worker lives."""
    with Redis.from_url(deployment.services.broker_url) as valkey:
        yield valkey
        until(deployment.is_idle)
    assert worker.is_alive()


def forge(
    broker: Redis, task: str, arguments: object, task_id: str | None = None, **headers: object
) -> None:
    """Put a message into a queue, as kombu would write it."""
    queue = LOG_QUEUE if task == "callgate.log_call" else CALL_QUEUE
    named = {"task": task, "id": task_id or str(uuid4()), "lang": "py", **headers}
    push(broker, queue, json.dumps([arguments, {}, {}]).encode(), named)


def push(
    broker: Redis,
    queue: str,
    body: bytes,
    headers: dict[str, object],
    content_type: str = "application/json",
) -> None:
    """Put any body into a queue."""
    more = {"content-encoding": "binary"}
    broker.lpush(queue, envelope(body, headers, content_type, queue, **more))


def forge_call(broker: Redis, handle: Handle, **headers: object) -> None:
    """The message of a call, with headers of the attacker's choice."""
    arguments = [str(handle.key.call_id), handle.key.generation]
    forge(broker, "callgate.call", arguments, handle.task_id, **headers)


def assert_paid_once(deployment: Deployment, handle: Handle, org: str) -> None:
    """It succeeds, by one request of one attempt."""
    assert handle.get(timeout=PATIENCE_S).text == "ok"
    assert deployment.provider.counts().total == 1
    (attempt,) = deployment.attempts(org)
    assert (attempt.status, attempt.attempt) == ("succeeded", 1)


@pytest.mark.parametrize(
    "headers",
    [{"timelimit": [0.1, 0.1]}, {"timelimit": [None, 0.1]}, {"expires": PAST}, {"eta": FUTURE}],
    ids=["soft limit", "hard limit", "expired", "eta"],
)
def test_headers_neither_end_nor_delay_a_call(
    deployment: Deployment, broker: Redis, silent: Client, headers: dict[str, Any]
) -> None:
    """A time limit would stop a paid request, an expiry would block the id, an ETA would hold the message."""
    deployment.provider.script([Rule(reply=[Step(latency_s=0.5)])])
    org = deployment.org()
    handle = silent.submit(deployment.request(org))

    forge_call(broker, handle, **headers)

    assert_paid_once(deployment, handle, org)


@pytest.mark.parametrize(
    "publishes_callbacks",
    [
        {"callbacks": [{"task": "mischief", "options": {"queue": "mischief"}}]},
        {"callbacks": [{"task": "mischief"}], "chain": [{"task": "mischief"}], "chord": {}},
        {"errbacks": [5], "chain": [5]},
    ],
    ids=["good", "broken", "nonsense"],
)
def test_callbacks_in_a_message_are_ignored(
    deployment: Deployment, broker: Redis, silent: Client, publishes_callbacks: dict[str, Any]
) -> None:
    """The worker publishes none, and a malformed one does not keep the slot."""
    org = deployment.org()
    handle = silent.submit(deployment.request(org))
    call: list[object] = [str(handle.key.call_id), handle.key.generation]

    for task, queue, arguments in (
        ("callgate.sweep", CALL_QUEUE, [PAST]),
        ("callgate.log_call", LOG_QUEUE, [*call, str(uuid4())]),
        ("callgate.log_call", LOG_QUEUE, ["no", "attempt"]),
        ("callgate.call", CALL_QUEUE, call),
    ):
        body = json.dumps([arguments, {}, publishes_callbacks]).encode()
        push(broker, queue, body, {"task": task, "id": str(uuid4()), "lang": "py"})

    assert_paid_once(deployment, handle, org)
    assert not broker.exists("mischief")


@pytest.mark.parametrize("terminate", [False, True])
def test_a_revoked_call_runs(
    deployment: Deployment, broker: Redis, silent: Client, terminate: bool
) -> None:
    """Revoked by broadcast, before its message and while it runs: a call is cancelled in the ledger only."""
    deployment.provider.script([Rule(reply=[Step(latency_s=0.5)])])
    org = deployment.org()
    handle = silent.submit(deployment.request(org))
    control = deployment.client.celery_app.control

    control.revoke(handle.task_id, terminate=terminate, signal="SIGKILL")
    forge_call(broker, handle)
    until(lambda: handle.state is not CallState.QUEUED)
    control.revoke(handle.task_id, terminate=terminate, signal="SIGKILL")

    assert_paid_once(deployment, handle, org)


def test_a_replayed_message_claims_nothing(
    deployment: Deployment, broker: Redis, silent: Client
) -> None:
    """Before, while and after the call runs."""
    org = deployment.org()
    handle = silent.submit(deployment.request(org))

    for _ in range(25):
        forge_call(broker, handle)
    handle.get(timeout=PATIENCE_S)
    for _ in range(25):
        forge_call(broker, handle)
    until(deployment.is_idle)

    assert_paid_once(deployment, handle, org)


def test_a_forged_log_message_settles_nothing(
    deployment: Deployment, broker: Redis, silent: Client
) -> None:
    """Not a running attempt, nor one that does not exist, nor one of another call."""
    deployment.provider.script([Rule(reply=[Step(latency_s=1.0)])])
    org = deployment.org()
    handle = silent.submit(deployment.request(org))
    forge_call(broker, handle)
    until(lambda: len(deployment.attempts(org)) == 1)
    attempt_id = str(deployment.attempts(org)[0].attempt_id)
    call_id, generation = str(handle.key.call_id), handle.key.generation

    for arguments in (
        [call_id, generation, attempt_id],
        [call_id, generation, str(uuid4())],
        [call_id, generation + 1, attempt_id],
        [str(uuid4()), generation, attempt_id],
    ):
        forge(broker, "callgate.log_call", arguments)
    until(lambda: broker.llen(LOG_QUEUE) == 0)
    in_flight = deployment.attempts(org)[0]

    assert (in_flight.status, in_flight.posted_nano_usd) == ("dispatched", None)
    assert_paid_once(deployment, handle, org)


def test_unreadable_arguments_fail_alone(
    deployment: Deployment, broker: Redis, silent: Client
) -> None:
    """Numbers and texts that Postgres refuses, in one batch with good calls."""
    org = deployment.org()
    handles = silent.submit_many([deployment.request(org) for _ in range(20)])
    bad = [2**31, 2**70, -1, 0, "1", "x'; --", None, True, 1.5, [1], {"a": 1}]

    for number, handle in enumerate(handles):
        forge(broker, "callgate.call", [str(uuid4()), bad[number % len(bad)]])
        forge_call(broker, handle)
        forge(broker, "callgate.log_call", [str(uuid4()), bad[number % len(bad)], str(uuid4())])
    for sent_at in ("soon", PAST, FUTURE, "2026-01-01", "0001-01-01T00:00:00+00:00", None, 7):
        forge(broker, "callgate.sweep", [sent_at])

    assert [handle.get(timeout=PATIENCE_S).text for handle in handles] == ["ok"] * 20
    assert deployment.provider.counts().total == 20


def test_sweeps_from_the_future_run_queued_calls_once(
    deployment: Deployment, broker: Redis, silent: Client
) -> None:
    """However often they arrive: a call that they publish again claims nothing."""
    org = deployment.org()
    handles = silent.submit_many([deployment.request(org) for _ in range(20)])

    def sweep() -> bool:
        for _ in range(5):
            forge(broker, "callgate.sweep", [FUTURE])
        return not any(handle.state.is_open for handle in handles)

    until(sweep)
    assert deployment.provider.counts().total == 20
    assert len(deployment.attempts(org)) == 20


COMMANDS: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_shrink": {"n": 1_000_000},
    "pool_grow": {"n": 1_000_000},
    "pool_restart": {"modules": ["antigravity"], "reload": True},
    "autoscale": {"max": 1, "min": 0},
    "cancel_consumer": {"queue": CALL_QUEUE},
    "add_consumer": {"queue": "pipeline"},
    "rate_limit": {"task_name": "callgate.call", "rate_limit": "1/h"},
    "time_limit": {"task_name": "callgate.call", "soft": 0.01, "hard": 0.01},
    "revoke_by_stamped_headers": {"headers": {"a": "b"}},
    "hello": {"from_node": "x", "revoked": {"a": 1}},
    "disable_events": {},
    "election": {"id": "1", "topic": "task", "action": {}},
    "objgraph": {"num": 1},
}


def test_only_inspections_are_obeyed(deployment: Deployment, broker: Redis, silent: Client) -> None:
    """No command is obeyed or answered; the worker answers inspections and runs calls."""
    org, control = deployment.org(), deployment.client.celery_app.control
    broker.lpush("pipeline", "a message of somebody else")
    for command, arguments in COMMANDS.items():
        control.broadcast(command, arguments=arguments)

    asked_again = control.broadcast(
        "cancel_consumer", arguments=COMMANDS["cancel_consumer"], reply=True, limit=1, timeout=5
    )
    assert [list(answer) for reply in asked_again for answer in reply.values()] == [["error"]]
    assert len(control.ping(timeout=5, limit=1)) == 1
    (stats,) = control.inspect(timeout=5, limit=1).stats().values()
    (queues,) = control.inspect(timeout=5, limit=1).active_queues().values()
    handle = silent.submit(deployment.request(org))
    forge_call(broker, handle)

    assert stats["pool"]["max-concurrency"] == 1_000
    assert {queue["name"] for queue in queues} == {CALL_QUEUE, EXPRESS_QUEUE, LOG_QUEUE}
    assert_paid_once(deployment, handle, org)
    assert broker.lpop("pipeline") == b"a message of somebody else"


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "text/plain"],
)
def test_only_json_is_decoded(
    deployment: Deployment, broker: Redis, tmp_path: Path, content_type: str
) -> None:
    """Another content type is refused and stored as unprocessable, on the queues and as a broadcast."""
    file = tmp_path / "unpickled"
    body = pickle.dumps([Trap(file), {}, {}])
    kept = len(deployment.client.operations.unprocessable_messages(limit=1_000))

    for queue, task in ((CALL_QUEUE, "callgate.call"), (LOG_QUEUE, "callgate.log_call")):
        push(broker, queue, body, {"task": task, "id": str(uuid4()), "lang": "py"}, content_type)

    until(lambda: len(deployment.client.operations.unprocessable_messages(limit=1_000)) == kept + 2)
    assert not file.exists()


WORD = f"canary {uuid4().hex}"
QUOTABLE: dict[str, tuple[bytes, dict[str, object]]] = {
    "not UTF-8": (f'[["{WORD} '.encode() + b'\xff"], {}, {}]', {}),
    "cut off": (f'[["{WORD}'.encode(), {}),
    "no task": (json.dumps({"text": WORD}).encode(), {"task": None}),
    "an unknown task": (json.dumps([[WORD], {}, {}]).encode(), {"task": WORD}),
    "an odd body": (json.dumps(WORD).encode(), {}),
    "odd parts": (json.dumps([WORD, {}, {}]).encode(), {}),
    "an odd compression": (b"[[], {}, {}]", {"compression": WORD}),
}


@pytest.mark.parametrize("what", QUOTABLE)
@pytest.mark.parametrize(("queue", "task"), [(CALL_QUEUE, "call"), (LOG_QUEUE, "log_call")])
def test_an_unprocessable_message_is_not_quoted(
    deployment: Deployment, worker: Process, broker: Redis, what: str, queue: str, task: str
) -> None:
    """It is stored as it came. Neither the reason nor the log quotes it."""
    body, headers = QUOTABLE[what]
    named = {"task": f"callgate.{task}", "id": str(uuid4()), "lang": "py", **headers}
    kept = len(deployment.client.operations.unprocessable_messages(limit=1_000))

    push(broker, queue, body, {name: value for name, value in named.items() if value})

    until(lambda: len(deployment.client.operations.unprocessable_messages(limit=1_000)) == kept + 1)
    ((_, message),) = deployment.client.operations.unprocessable_messages(limit=1)
    assert WORD.encode() in message.raw
    assert WORD not in message.reason
    assert WORD not in worker.output()
