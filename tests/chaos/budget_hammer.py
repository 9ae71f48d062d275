"""
A process that reserves and settles through `PostgresLedger` at full speed, and makes no requests.

Several of these processes work on the same organisation, round by round. A round ends when none of its calls is open. A
call that waits comes back through the due query, to any of the processes.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from redis import Redis

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.identity import call_id
from callgate.domain.ledger import (
    Locked,
    NewSubmission,
    RecordAnswer,
    Refused,
    Reserve,
    Reserved,
    Settle,
    Unstorable,
)
from callgate.settings import ClientSettings
from tests.support.waiting import until

T = TypeVar("T")
HOLD_NANO_USD = 1_000
HOLDS_MAX = 3
"""In a round that is not exact, a hold is one to three times `HOLD_NANO_USD`, depending on the id of the call."""
EXPIRES_IN_S = 600.0
BATCH_MAX = 16
IDLE_S = 0.005
BARRIER_MAX_S = 60.0


def main(
    report: str, rounds: Sequence[tuple[str, bool]], calls: int, processes: int, seed: int
) -> int:
    """
    Run the rounds; report how many decisions had which result.

    Args:
        rounds: The organisation of each round, and whether every call holds and costs exactly `HOLD_NANO_USD`.
    """
    settings = ClientSettings()  # type: ignore[call-arg]
    session = PostgresSession(
        settings.database_url.get_secret_value(), timeout_s=settings.ledger_timeout_s, pool_size=2
    )
    hammer = BudgetHammer(session, random.Random(seed))  # noqa: S311
    with Redis.from_url(settings.broker_url.get_secret_value()) as valkey:
        for org, is_exact in rounds:
            hammer.is_exact = is_exact
            hammer.submit(org, calls)
            _wait_for_others(valkey, f"chaos:{org}", processes)
            hammer.work(org)
    session.close()
    Path(report).write_text(json.dumps(hammer.counts))
    return 0


def _wait_for_others(valkey: Redis, name: str, processes: int) -> None:
    valkey.incr(name)
    until(
        lambda: int(valkey.get(name) or 0) >= processes,
        BARRIER_MAX_S,
        lambda: "the other processes did not start the round",
    )


class BudgetHammer:
    """The reservations and settlements of one process."""

    def __init__(self, session: PostgresSession, rng: random.Random) -> None:
        self._session = session
        self._ledger = PostgresLedger(session)
        self._rng = rng
        self._pending: list[CallKey] = []
        self._running: list[AttemptRef] = []
        self._name = str(uuid4())
        self.is_exact = False
        self.counts = {"reserved": 0, "held": 0, "rejected": 0, "unavailable": 0}

    def submit(self, org: str, calls: int) -> None:
        """Store the calls of one round."""
        batch = [_submission(org, ("a", "b")[n % 2]) for n in range(calls)]
        self._pending = [s.key for s in self._ledger.submit(batch)]

    def work(self, org: str) -> None:
        """Reserve, settle and take due calls, until no call of the organisation is open."""
        while self._pending or self._running or self._is_open(org):
            try:
                self._step()
            except LedgerUnavailable:
                # The outcome is unknown: the calls are sent again, or become due.
                self.counts["unavailable"] += 1

    def _step(self) -> None:
        self._rng.shuffle(self._pending)
        size = self._rng.randint(1, BATCH_MAX)
        self._pending = self._pending[size:] + self._reserve(self._pending[:size])
        finished = [ref for ref in self._running if self._rng.random() < 0.5]
        settled = self._settle(finished)
        self._running = [ref for ref in self._running if ref not in settled]
        due = self._ledger.take_due(limit=50)
        self._pending += [item.key for item in due.items]
        if not self._pending and not self._running:
            time.sleep(IDLE_S)

    def _reserve(self, keys: Sequence[CallKey]) -> list[CallKey]:
        """Reserve calls; return those that are locked at the moment."""
        outcomes = _stored(self._ledger.reserve([self._reservation(key) for key in keys]))
        self._running += [o.ref for o in outcomes if isinstance(o, Reserved)]
        refused = [o for o in outcomes if isinstance(o, Refused)]
        self.counts["reserved"] += sum(isinstance(o, Reserved) for o in outcomes)
        self.counts["held"] += sum(o.state is CallState.WAITING for o in refused)
        self.counts["rejected"] += sum(o.state is CallState.REJECTED for o in refused)
        return [o.key for o in outcomes if isinstance(o, Locked)]

    def _reservation(self, key: CallKey) -> Reserve:
        return Reserve(key, self._hold(key), EXPIRES_IN_S, f"{self._name}/{key.task_id}", "chaos")

    def _settle(self, refs: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Record and settle attempts; return those whose calls were not locked."""
        self._ledger.record([RecordAnswer(ref, b"{}", None, 1) for ref in refs])
        outcomes = _stored(self._ledger.settle([self._settlement(ref) for ref in refs]))
        return [ref for ref, o in zip(refs, outcomes, strict=True) if not isinstance(o, Locked)]

    def _settlement(self, ref: AttemptRef) -> Settle:
        """Return the settlement of an attempt, at its hold or at a random cost below it."""
        hold = self._hold(ref.key)
        return Settle(
            ref=ref,
            expected_status=AttemptStatus.ANSWERED,
            status=AttemptStatus.SUCCEEDED,
            posted_nano_usd=hold if self.is_exact else self._rng.randint(0, hold),
            next_state=CallState.SUCCEEDED,
            health=Health.ALIVE,
        )

    def _hold(self, key: CallKey) -> int:
        """Return the hold of a call; all processes compute the same."""
        return HOLD_NANO_USD * (1 if self.is_exact else 1 + key.call_id.int % HOLDS_MAX)

    def _is_open(self, org: str) -> bool:
        sql = (
            "SELECT EXISTS (SELECT 1 FROM llm_call WHERE org_id = %(org)s"
            " AND state IN ('queued', 'running', 'waiting')) AS is_open"
        )
        (row,) = self._session.rows(sql, {"org": org})
        return bool(row.is_open)


def _stored(outcomes: list[T]) -> list[T]:
    """Fail at once if the ledger refuses a row (a negative hold, for example): its call would never end."""
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unstorable)]
    assert not refused, refused
    return outcomes


def _submission(org: str, call_type: str) -> NewSubmission:
    input_hash = uuid4().bytes + uuid4().bytes
    return NewSubmission(
        submission_id=uuid4(),
        org_id=org,
        call_id=call_id(org, input_hash),
        input_hash=input_hash,
        call_type=call_type,
        provider="sim",
        model="sim-1",
        input_token_bound=1,
        request=b"{}",
    )
