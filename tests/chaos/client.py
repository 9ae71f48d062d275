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

from callgate import Client
from callgate.client import Handle
from callgate.domain.errors import CallFailed, CallgateError, LedgerUnavailable, WaitTimeout
from tests.chaos.mix import fits, request_of
from tests.support.pipeline import build_app

RETRY_S = 0.1
Kind = tuple[str, str]
"""The target and the form of a request."""


def main(report: str, give_up_after_s: float, **stream: Any) -> int:
    """Submit, wait, and write the report."""
    with Client.from_env() as client:
        batches = list(_submitted(client, **stream))
        give_up_at = time.monotonic() + give_up_after_s
        results = [
            {
                "document": document,
                "outcomes": [[h.task_id, _outcome(h, kind, give_up_at)] for h, kind in handles],
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
    targets: Sequence[str],
    forms: Sequence[str],
    batch: int,
    pause_s: float,
    repeat: int,
    distinct: int,
    offset: int,
    links: bool,
) -> Iterator[tuple[str, list[tuple[Handle, Kind]]]]:
    """
    Submit until the stop file exists, or until `total_max` submissions were accepted.

    All clients use the same sequence of questions, so that they submit the same ones at about the same time: each
    question `repeat` times, and cyclically if there are only `distinct` of them. Each organisation has questions of
    each form for each target.
    """
    pipeline = build_app(os.environ["CALLGATE_BROKER_URL"])
    store, complain = (pipeline.tasks[f"pipeline.{name}"] for name in ("store", "complain"))
    accepted, give_up_at = 0, time.monotonic() + seconds_max
    while accepted < total_max and time.monotonic() < give_up_at and not Path(stop).exists():
        size = min(batch, total_max - accepted)
        numbers = [(offset + n) // repeat % distinct for n in range(accepted, accepted + size)]
        kinds = [_kind(n // len(orgs), targets, forms) for n in numbers]
        requests = [
            request_of(orgs[n % len(orgs)], call_types[n % len(call_types)], n, *kind)
            for n, kind in zip(numbers, kinds, strict=True)
        ]
        document = str(uuid4()) if links else ""
        try:
            callbacks = (
                {"link": store.s(document), "link_error": complain.s(document)} if links else {}
            )
            yield document, list(zip(client.submit_many(requests, **callbacks), kinds, strict=True))
            accepted += size
        except LedgerUnavailable:
            # Perhaps accepted. Submitting again is safe; the links of the next try name another document.
            time.sleep(RETRY_S)
        time.sleep(pause_s)


def _kind(number: int, targets: Sequence[str], forms: Sequence[str]) -> Kind:
    return targets[number % len(targets)], forms[number // len(targets) % len(forms)]


def _outcome(handle: Handle, kind: Kind, give_up_at: float) -> str:
    target, form = kind
    while True:
        try:
            result = handle.get(timeout=max(give_up_at - time.monotonic(), 0.01))
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
            return "succeeded" if fits(form, target, result) else "wrong"
