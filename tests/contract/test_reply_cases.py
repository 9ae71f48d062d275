"""Every kind of reply, over a socket, through the whole path: what becomes of the call, and what is posted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import ProviderReply
from callgate.services.results import result_of
from tests.contract.answer_cases import ENDINGS, ENVELOPES, WRAPPINGS
from tests.contract.bill_cases import TIERS, USAGES
from tests.contract.error_cases import ERRORS
from tests.contract.openai_attempts import forget_proxies
from tests.contract.provider_worlds import Exchange, Received, SocketServer, adapter_for, http
from tests.contract.reply_case import Case
from tests.support.service_world import POLICY, ServiceWorld

CASES = (*ERRORS, *ENVELOPES, *ENDINGS, *WRAPPINGS, *USAGES, *TIERS)
ATTEMPTS_MAX = 5
PROMPT = "words " * 200
"""Long enough for a thousand tokens to be plausible: its bound is its bytes."""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


def in_turn(case: Case) -> Exchange:
    """Send the replies one after the other, the last one again and again."""
    waiting: Iterator[bytes] = iter(
        [http(r.data, status=r.status, headers=r.headers) for r in case.replies]
    )
    last = b""

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        last = next(waiting, last)
        writer.write(last)
        await writer.drain()

    return exchange


async def played(case: Case) -> tuple[ServiceWorld, CallView, int]:
    """Run one call to its end."""
    entry = ProviderEntry(needs_key=False, **case.entry)
    policy = POLICY.model_copy(update={"attempts_max": ATTEMPTS_MAX})
    world = ServiceWorld(policy=policy, entry=entry)
    async with (
        SocketServer(in_turn(case)) as server,
        adapter_for(server.base_url, needs_key=False, **case.entry) as adapter,
    ):
        world.providers["sim"] = adapter
        key = world.submit(PROMPT, **case.request).key
        view = world.view(key)
        for _ in range(ATTEMPTS_MAX + 1):
            view = await world.run(key)
            if not view.state.is_open:
                break
            world.clock.elapsed_s += 3_600
            world.due.run()
        return world, view, len(server.received)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reply_is_judged_and_billed(case: Case) -> None:
    """Attempts, end, money, flags and texts are those of the table, and the budget says the same."""
    world, view, requests = asyncio.run(played(case))

    last = view.last
    assert last is not None
    assert (view.state, view.attempt, requests) == (case.ends, case.attempts, case.attempts)
    expected = case.attempts * last.hold_nano_usd if case.posted is None else case.posted
    assert view.posted_nano_usd == expected
    (budget,) = world.ledger.budgets("acme")
    assert (budget.spent_nano_usd, budget.reserved_nano_usd) == (expected, 0)
    assert budget.window is Window.DAY
    assert last.anomalies == case.anomalies
    if case.ends == "succeeded":
        result = result_of(view, good_endings=world.catalogue.good_endings("sim"))
        assert result.texts == case.texts
        assert result.finish_reason == ("length" if "its bound" in case.name else "stop")
        assert (result.usage is not None) == case.usage_is_known
    else:
        failure = json.loads(view.error or "{}")
        assert failure["code"] == case.code
        assert case.says in failure["message"]


def test_no_half_answer_is_kept_as_a_result() -> None:
    """What is stored of a failed attempt is for operators; a call that is tried again returns the whole answer only."""
    (case,) = (case for case in CASES if case.name == "broken off, then fine")

    world, view, _ = asyncio.run(played(case))

    (first, second) = (a for a in world.ledger.tables.attempts.values())
    assert b"first half" in (first.reply or b"")
    assert ProviderReply.from_json(second.reply or b"").texts == ("fine",)
    (seen,) = world.ledger.read(
        [AttemptRef(CallKey(view.key.call_id, 1), first.attempt_id)], Bodies.NONE
    )
    assert seen is not None
    assert seen.last is not None
    assert (seen.last.status, seen.last.posted_nano_usd) == ("failed", 25_000)
