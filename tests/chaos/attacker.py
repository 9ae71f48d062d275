"""
A hostile tenant with its own login and the password of the broker. It tries to stop the calls of other tenants.

    python -m tests.chaos.attacker '{"database_url": ..., "kinds": ["locks"], ...}'

Each kind of attack is a thread that repeats it until a file exists. Refused attacks are counted and repeated.
"""

from __future__ import annotations

import bz2
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
from kombu import Connection, Exchange
from psycopg2.extras import NamedTupleCursor, register_uuid
from redis import Redis

from callgate import LLMRequest, Message
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey
from callgate.domain.identity import call_id
from callgate.domain.ledger import NewSubmission
from callgate.domain.reports import EndReason
from tests.support.queued_messages import envelope
from tests.support.waiting import holds_within, until

LOCKS = 60
LOCK_HELD_S = 2.0
REJECTED, LINKS_OF_ONE_CALL = 15, 300
"""The size of a round of `junk_links`. A flood of calls would be another attack, on the slots of workers."""
BIG_PROMPT_BYTES = 16_000_000
DECOMPRESSED_BYTES = 3 * 2**30
NO_QUEUE = "hostile.set"
"""A key of the broker that is not a list, so that nothing can be published to it."""
QUEUES = ("callgate.call", "callgate.log")
FANOUT = "celery.pidbox"
SLOW = "slow question"
"""Requests with these words are answered late, so that their calls are running for a while."""
BOMB = "bomb"
"""Requests with this word are answered with `{}`. Their schema takes very long to refuse it."""


def wide_schema(levels: int = 40) -> dict[str, Any]:
    """Return forty levels of two references each: 2^40 branches in less than 3 kB."""
    names = [f"d{n}" for n in range(levels)]
    definitions: dict[str, Any] = {
        name: {"allOf": [{"$ref": f"#/$defs/{below}"}] * 2} for name, below in pairwise(names)
    }
    definitions[names[-1]] = {"type": "object"}
    return {"type": "object", "$defs": definitions, "allOf": [{"$ref": "#/$defs/d0"}]}


def deep_schema(levels: int = 18) -> dict[str, Any]:
    """Return nested alternatives that never match: every failure holds all failures of the levels below."""
    names = [f"e{n}" for n in range(levels)]
    definitions: dict[str, Any] = {
        name: {"anyOf": [{"$ref": f"#/$defs/{below}"}] * 2} for name, below in pairwise(names)
    }
    definitions[names[-1]] = {"type": "integer"}
    return {"type": "object", "$defs": definitions, "allOf": [{"$ref": "#/$defs/e0"}]}


class OpenTransaction:
    """A session for `PostgresLedger` that leaves its transaction open."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url.replace("+psycopg2", ""))
        register_uuid(conn_or_curs=self._connection)
        with self._connection.cursor() as cursor:
            # Every login may change these settings for itself.
            for name in ("idle_in_transaction_session_timeout", "statement_timeout"):
                cursor.execute(f"SET {name} = 0")
        self._connection.commit()

    def answers(self, sql: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Run one statement without a commit."""
        with self._connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
            cursor.execute(sql, dict(parameters))
            return list(cursor.fetchall())

    def close(self) -> None:
        """Roll the transaction back."""
        self._connection.close()


@dataclass
class Attacker:
    """The connections of the attacker, and its kinds of attack."""

    database_url: str
    broker_url: str
    org: str
    stop: Path
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.session = PostgresSession(self.database_url, timeout_s=20)
        self.ledger = PostgresLedger(self.session)
        self.broker = Redis.from_url(self.broker_url)

    def is_over(self) -> bool:
        """Tell whether the trial has ended the attack."""
        return self.stop.exists()

    def submission(self, content: str, *, link: str | None = None, **changes: Any) -> NewSubmission:
        """Return a submission that no client has checked; `changes` replace fields of the stored request."""
        message = Message(role="user", content=content)
        request = LLMRequest(
            org_id=self.org,
            call_type="answer",
            provider="sim",
            model="sim-1",
            messages=[message],
            max_output_tokens=50,
        )
        stored = {**request.model_dump(mode="json"), **changes}
        return self.raw(json.dumps(stored).encode(), link=link)

    def raw(self, request: bytes, *, link: str | None = None) -> NewSubmission:
        """Return a submission with any bytes as its request."""
        input_hash = sha256(request + uuid4().bytes).digest()
        return NewSubmission(
            submission_id=uuid4(),
            org_id=self.org,
            call_id=call_id(self.org, input_hash),
            input_hash=input_hash,
            call_type="answer",
            provider="sim",
            model="sim-1",
            input_token_bound=1,
            request=request,
            link=link,
        )

    def submit(self, batch: Sequence[NewSubmission]) -> list[CallKey]:
        """Store and publish submissions, without the checks of callgate's client."""
        keys = [answer.key for answer in self.ledger.submit(batch)]
        for key in keys:
            body = json.dumps([[str(key.call_id), key.generation], {}, {}]).encode()
            self._push(QUEUES[0], body, {"task": "callgate.call", "id": key.task_id, "lang": "py"})
        return keys

    # The kinds of attack. Each method is one round.

    def locks(self) -> None:
        """Submit sixty calls, of which half run for a while, and lock all in one open transaction."""
        words = (f"{SLOW} {uuid4()}", f"question {uuid4()}")
        batch = [self.submission(f"{words[n % 2]} {n}") for n in range(LOCKS)]
        self.submit(batch)
        for _ in range(3):
            with self._transaction() as transaction:
                duplicates = [self._duplicate(new) for new in batch]
                PostgresLedger(transaction).submit(duplicates)  # type: ignore[arg-type]
                self._pause(LOCK_HELD_S)

    def junk_links(self) -> None:
        """Submit calls that are rejected without cost, with links that cannot be delivered; then many on one call."""
        links = [
            link_to({"queue": NO_QUEUE}),
            link_to({"queue": QUEUES[0]}),
            link_to({"exchange": "none"}),
        ]
        self.broker.sadd(NO_QUEUE, 1)
        self.submit([self.raw(b"{}", link=links[n % len(links)]) for n in range(REJECTED)])
        one = self.raw(b"{}", link=links[0])
        self.ledger.submit(
            [one, *(self._duplicate(one, link=links[0]) for _ in range(LINKS_OF_ONE_CALL))]
        )
        self._pause(0.5)

    def bombs(self) -> None:
        """Submit calls whose schemas take too long to check."""
        for schema in (wide_schema(), deep_schema()):
            text = json.dumps(schema)
            self.submit([self.submission(f"{BOMB} {uuid4()}", response_schema=text)])
        self._pause(2)

    def big_prompts(self) -> None:
        """Submit requests that are refused for their length, after a worker has counted their tokens."""
        self.submit([self.submission("word " * (BIG_PROMPT_BYTES // 5) + str(uuid4()))])
        self._pause(1)

    def churn(self) -> None:
        """Submit, cancel and submit again, while workers claim the calls."""
        batch = [self.submission(f"question {uuid4()}") for _ in range(5)]
        keys = self.submit(batch)
        operations = PostgresOperations(self.session)
        operations.end(keys, code=EndReason.CANCELLED, message="no")
        self.submit([self._duplicate(new) for new in batch])
        self._pause(0.5)

    def messages(self) -> None:
        """Publish messages and broadcasts that decompress to gigabytes, have long headers, or set a logical clock."""
        for queue, task in zip(QUEUES, ("callgate.call", "callgate.log_call"), strict=True):
            headers = {"task": task, "id": str(uuid4()), "lang": "py"}
            body = json.dumps([[str(uuid4()), 1], {}, {}]).encode()
            self._push(queue, decompression_bomb(), headers, "bz2")
            self._push(queue, body, {**headers, "shadow": "x" * 100_000})
            self._push(queue, body, {**headers, "reply_to": queue, "correlation_id": str(uuid4())})
        self._broadcast({"method": "ping"}, {"clock": 2**62})
        reply_to = {"exchange": "", "routing_key": QUEUES[0]}
        self._broadcast({"method": "ping", "reply_to": reply_to, "ticket": "x" * 10_000}, {})
        self._pause(1)

    # Shared by the attacks.

    @contextmanager
    def _transaction(self) -> Iterator[OpenTransaction]:
        transaction = OpenTransaction(self.database_url)
        try:
            yield transaction
        finally:
            transaction.close()

    def _duplicate(self, new: NewSubmission, link: str | None = None) -> NewSubmission:
        """Return another submission of the same call. Its link makes the submission lock the call exclusively."""
        fields = {name: getattr(new, name) for name in new.__slots__}
        link = link or link_to({"queue": NO_QUEUE})
        return NewSubmission(**{**fields, "submission_id": uuid4(), "link": link})

    def _push(
        self, queue: str, body: bytes, headers: Mapping[str, Any], encoding: str = "utf-8"
    ) -> None:
        more = {"content-encoding": encoding}
        self.broker.lpush(queue, envelope(body, dict(headers), queue=queue, **more))

    def _broadcast(self, body: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
        command = {"arguments": {}, "destination": None, "pattern": None, "matcher": None, **body}
        with Connection(self.broker_url) as connection, connection.Producer() as producer:
            producer.publish(
                command,
                exchange=Exchange(FANOUT, type="fanout"),
                routing_key="",
                headers={"expires": time.time() + 60, **headers},
                serializer="json",
            )

    def _pause(self, seconds: float) -> None:
        holds_within(seconds, self.is_over)


def link_to(options: Mapping[str, str]) -> str:
    """Return a link to a destination of the attacker."""
    signature: dict[str, Any] = {
        "task": "hostile.store",
        "args": [],
        "kwargs": {},
        "options": dict(options),
        "subtask_type": None,
        "immutable": False,
    }
    return json.dumps({"link": signature, "link_error": signature})


@cache
def decompression_bomb() -> bytes:
    """Return a few kB that decompress to gigabytes: many copies of one stream, which is fast to produce."""
    zeros = bytes(2**24)
    return bz2.compress(zeros) * (DECOMPRESSED_BYTES // len(zeros))


KINDS = ("locks", "junk_links", "bombs", "big_prompts", "churn", "messages")
THREADS = {"locks": 2}
"""Two threads, so that some rows are always locked."""
START_MAX_S = 60.0
UNDER_WAY = "every kind of attack is under way"


def main(
    kinds: Sequence[str], report: str, stop: str, database_url: str, broker_url: str, org: str
) -> int:
    """Attack until the stop file exists; report the rounds of each kind, and the errors."""
    attacker = Attacker(database_url, broker_url, org, Path(stop))
    threads = [
        threading.Thread(target=_repeat, args=(attacker, kind), daemon=True)
        for kind in kinds
        for _ in range(THREADS.get(kind, 1))
    ]
    for thread in threads:
        thread.start()
    until(
        lambda: (
            attacker.is_over() or {k.partition(":")[0] for k in list(attacker.counts)} >= set(kinds)
        ),
        START_MAX_S,
    )
    sys.stdout.write(UNDER_WAY + "\n")
    sys.stdout.flush()
    for thread in threads:
        thread.join()
    Path(report).write_text(json.dumps(attacker.counts))
    return 0


def _repeat(attacker: Attacker, kind: str) -> None:
    attack: Callable[[], None] = getattr(attacker, kind)
    while not attacker.is_over():
        attacker.counts[f"{kind}: begun"] += 1
        try:
            attack()
        except Exception as exc:
            attacker.counts[f"{kind}: {type(exc).__name__}"] += 1
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(**json.loads(sys.argv[1])))
