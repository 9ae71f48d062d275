"""
A process of a pipeline: submits requests with many duplicates, then waits for the result of every handle.

Its report says what was accepted and what it received, independent of the ledger.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from callgate import Client, LLMRequest, Message
from callgate.client import Handle
from callgate.domain.errors import CallFailed, CallgateError, LedgerUnavailable, WaitTimeout
from tests.support.pipeline import build_app

RETRY_S = 0.1


def main(report: str, give_up_after_s: float, **stream: Any) -> int:
    """Submit, wait, and write the report."""
    with Client.from_env() as client:
        batches = list(_submitted(client, **stream))
        give_up_at = time.monotonic() + give_up_after_s
        results = [
            {
                "document": document,
                "outcomes": [[h.task_id, _outcome(h, give_up_at)] for h in handles],
            }
            for document, handles in batches
        ]
    Path(report).write_text(json.dumps(results))
    return 0


def _submitted(
    client: Client,
    *,
    stop: str,
    seconds_max: float,
    total_max: int,
    orgs: Sequence[str],
    call_types: Sequence[str],
    batch: int,
    pause_s: float,
    repeat: int,
    distinct: int,
    offset: int,
    links: bool,
) -> Iterator[tuple[str, list[Handle]]]:
    """
    Submit until the stop file exists, or until `total_max` submissions were accepted.

    All clients use the same sequence of questions, so that they submit the same ones at about the same time: each
    question `repeat` times, and cyclically if there are only `distinct` of them.
    """
    pipeline = build_app(os.environ["CALLGATE_BROKER_URL"])
    store, complain = (pipeline.tasks[f"pipeline.{name}"] for name in ("store", "complain"))
    accepted, give_up_at = 0, time.monotonic() + seconds_max
    while accepted < total_max and time.monotonic() < give_up_at and not Path(stop).exists():
        size = min(batch, total_max - accepted)
        numbers = [(offset + n) // repeat % distinct for n in range(accepted, accepted + size)]
        requests = [
            _request(orgs[n % len(orgs)], call_types[n % len(call_types)], n) for n in numbers
        ]
        document = str(uuid4()) if links else ""
        try:
            callbacks = (
                {"link": store.s(document), "link_error": complain.s(document)} if links else {}
            )
            yield document, client.submit_many(requests, **callbacks)
            accepted += size
        except LedgerUnavailable:
            # Perhaps accepted. Submitting again is safe; the links of the next try name another document.
            time.sleep(RETRY_S)
        time.sleep(pause_s)


def _request(org: str, call_type: str, number: int) -> LLMRequest:
    message = Message(role="user", content=f"question {number}")
    return LLMRequest(
        org_id=org, call_type=call_type, provider="sim", model="sim-1", messages=[message]
    )


def _outcome(handle: Handle, give_up_at: float) -> str:
    while True:
        try:
            handle.get(timeout=max(give_up_at - time.monotonic(), 0.01))
        except WaitTimeout:
            return "lost"
        except LedgerUnavailable:
            if time.monotonic() > give_up_at:
                return "lost"
            time.sleep(RETRY_S)
        except CallFailed:
            return "dead"
        except CallgateError:
            return "rejected"
        else:
            return "succeeded"
