"""Releasing a lease while its calls move: what only a database with several sessions can show."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine, text

from callgate.domain.ledger import Reserved
from tests.contract.harness import LedgerUnderTest, a_loss, a_reserve

DEAD = "host:1:dead"
WAITING = """SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND query LIKE '%release_leases%' AND pid <> pg_backend_pid()"""


def test_a_call_that_moved_on_is_left_to_its_new_worker(
    ledger: LedgerUnderTest,
    postgres_engine: Engine,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    """The dead worker's attempt is posted while its release waits for the call: what runs then is another's."""
    ledger.leases.renew(DEAD, 8)
    (old,) = ledger.reserve(a_reserve(ledger.queued(), worker_id=f"{DEAD}/1"))
    assert isinstance(old, Reserved)
    due_at = ledger.view(old.ref).due_at
    with ThreadPoolExecutor(1) as pool:
        with postgres_engine.begin() as mover:
            mover.execute(text("SELECT 1 FROM llm_call FOR UPDATE"))
            release = pool.submit(ledger.leases.release, DEAD)
            with postgres_engine.connect() as watcher:
                eventually(lambda: bool(watcher.scalar(text(WAITING))))
            mover.execute(
                text(
                    "UPDATE ai_call_log SET status = 'unknown', posted_nano_usd = 0, posted_at = now()"
                )
            )
        release.result()

    assert ledger.view(old.ref).due_at == due_at


def test_leases_are_released_while_their_calls_are_settled(ledger: LedgerUnderTest) -> None:
    """Releases and postings of the same calls meet in every order; nobody deadlocks, and every attempt is posted."""
    refs = []
    for n in range(40):
        (outcome,) = ledger.reserve(
            a_reserve(ledger.queued(f"page {n}"), 10, worker_id=f"host:{n % 4}:dead/{n}")
        )
        assert isinstance(outcome, Reserved)
        refs.append(outcome.ref)
    batches = [refs[start::3] for start in range(3)]

    with ThreadPoolExecutor(8) as pool:
        work = [
            *(
                pool.submit(ledger.settle, *[a_loss(ref, 10) for ref in reversed(b)])
                for b in batches
            ),
            *(pool.submit(ledger.leases.release, f"host:{n}:dead") for n in range(4)),
            pool.submit(ledger.due),
        ]
        for future in work:
            future.result()

    assert ledger.figures() == (0, 400)
