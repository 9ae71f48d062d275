"""
A process that does nothing but decide about money: it reserves and settles through `PostgresLedger`, at full speed.

All clerks work on the same organisation, round by round; a round is over when none of its calls is open. A call that
has to wait comes back through the due query, to whichever clerk asks first.
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

T = TypeVar("T")
HOLD_NANO_USD = 1_000
HOLDS_MAX = 3
"""In a round that is not exact a call's hold is one to three times `HOLD_NANO_USD`, by its id."""
LEASE_S = 600.0
BATCH_MAX = 16
IDLE_S = 0.005
BARRIER_S_MAX = 60.0


def main(
    report: str, rounds: Sequence[tuple[str, bool]], calls: int, clerks: int, seed: int
) -> int:
    """
    Work through the rounds; report how many decisions came to what.

    Args:
        rounds: The organisation of each, and whether every call holds and costs exactly `HOLD_NANO_USD`.
    """
    settings = ClientSettings()  # type: ignore[call-arg]
    session = PostgresSession(
        settings.database_url.get_secret_value(), timeout_s=settings.ledger_timeout_s, pool_size=2
    )
    hammer = Clerk(session, random.Random(seed))  # noqa: S311
    with Redis.from_url(settings.broker_url.get_secret_value()) as valkey:
        for org, is_exact in rounds:
            hammer.is_exact = is_exact
            hammer.submit(org, calls)
            _meet(valkey, f"chaos:{org}", clerks)
            hammer.work(org)
    session.close()
    Path(report).write_text(json.dumps(hammer.counts))
    return 0


def _meet(valkey: Redis, name: str, clerks: int) -> None:
    valkey.incr(name)
    give_up_at = time.monotonic() + BARRIER_S_MAX
    while int(valkey.get(name) or 0) < clerks:
        assert time.monotonic() < give_up_at, "the other clerks do not come"
        time.sleep(IDLE_S)


class Clerk:
    """One process's work."""

    def __init__(self, session: PostgresSession, dice: random.Random) -> None:
        self._session = session
        self._ledger = PostgresLedger(session)
        self._dice = dice
        self._pending: list[CallKey] = []
        self._running: list[AttemptRef] = []
        self._name = str(uuid4())
        self.is_exact = False
        self.counts = {"reserved": 0, "held": 0, "rejected": 0, "unavailable": 0}

    def submit(self, org: str, calls: int) -> None:
        """Store the calls of a round."""
        batch = [_submission(org, ("a", "b")[n % 2]) for n in range(calls)]
        self._pending = [s.key for s in self._ledger.submit(batch)]

    def work(self, org: str) -> None:
        """Reserve, settle and take what is due, until no call of the organisation is open."""
        while self._pending or self._running or self._is_open(org):
            try:
                self._step()
            except LedgerUnavailable:
                # Nothing is known: what was sent is sent again, or comes back as due.
                self.counts["unavailable"] += 1

    def _step(self) -> None:
        self._dice.shuffle(self._pending)
        size = self._dice.randint(1, BATCH_MAX)
        self._pending = self._pending[size:] + self._reserve(self._pending[:size])
        finished = [ref for ref in self._running if self._dice.random() < 0.5]
        settled = self._settle(finished)
        self._running = [ref for ref in self._running if ref not in settled]
        due = self._ledger.take_due(limit=50)
        self._pending += [item.key for item in due.items]
        if not self._pending and not self._running:
            time.sleep(IDLE_S)

    def _reserve(self, keys: Sequence[CallKey]) -> list[CallKey]:
        """Decide about calls; return those that somebody else holds at this moment."""
        outcomes = _stored(self._ledger.reserve([self._reservation(key) for key in keys]))
        self._running += [o.ref for o in outcomes if isinstance(o, Reserved)]
        refused = [o for o in outcomes if isinstance(o, Refused)]
        self.counts["reserved"] += sum(isinstance(o, Reserved) for o in outcomes)
        self.counts["held"] += sum(o.state is CallState.WAITING for o in refused)
        self.counts["rejected"] += sum(o.state is CallState.REJECTED for o in refused)
        return [o.key for o in outcomes if isinstance(o, Locked)]

    def _reservation(self, key: CallKey) -> Reserve:
        return Reserve(key, self._hold(key), LEASE_S, f"{self._name}/{key.task_id}", "chaos")

    def _settle(self, refs: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Record and settle attempts; return those whose calls nobody else holds."""
        self._ledger.record([RecordAnswer(ref, b"{}", None, 1) for ref in refs])
        outcomes = _stored(self._ledger.settle([self._settlement(ref) for ref in refs]))
        return [ref for ref, o in zip(refs, outcomes, strict=True) if not isinstance(o, Locked)]

    def _settlement(self, ref: AttemptRef) -> Settle:
        """At exactly the hold, or at anything below it."""
        hold = self._hold(ref.key)
        return Settle(
            ref=ref,
            expected_status=AttemptStatus.ANSWERED,
            status=AttemptStatus.SUCCEEDED,
            posted_nano_usd=hold if self.is_exact else self._dice.randint(0, hold),
            next_state=CallState.SUCCEEDED,
            health=Health.ALIVE,
        )

    def _hold(self, key: CallKey) -> int:
        """A call's hold; every clerk says the same."""
        return HOLD_NANO_USD * (1 if self.is_exact else 1 + key.call_id.int % HOLDS_MAX)

    def _is_open(self, org: str) -> bool:
        sql = (
            "SELECT EXISTS (SELECT 1 FROM llm_call WHERE org_id = %(org)s"
            " AND state IN ('queued', 'running', 'waiting')) AS is_open"
        )
        (row,) = self._session.rows(sql, {"org": org})
        return bool(row.is_open)


def _stored(outcomes: list[T]) -> list[T]:
    """Fail at once where the books refuse a row, say to hold less than nothing: its call would never end."""
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
