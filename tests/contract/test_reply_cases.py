"""Every kind of reply over a real socket and through the whole service: the call's end and the posted money."""

from __future__ import annotations

import asyncio
import json

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import ProviderReply
from callgate.services.results import result_of
from tests.contract.answer_cases import ENDINGS, ENVELOPES, WRAPPINGS
from tests.contract.anthropic_cases import MESSAGES
from tests.contract.bill_cases import TIERS, USAGES
from tests.contract.error_cases import ERRORS
from tests.contract.fault_cases import faults
from tests.contract.parrot_cases import PARROT
from tests.contract.reply_case import FINE, Case, Reply
from tests.contract.responses_cases import RESPONSES
from tests.contract.way_cases import WAYS
from tests.support.provider_worlds import Exchange, Received, SocketServer, adapter_for, http
from tests.support.service_world import POLICY, ServiceWorld

CASES = (
    *ERRORS,
    *ENVELOPES,
    *ENDINGS,
    *WRAPPINGS,
    *WAYS,
    *USAGES,
    *TIERS,
    *faults("chat", FINE, protocol="openai"),
    *RESPONSES,
    *MESSAGES,
    *PARROT,
)
DRIP_PIECES = 20
ATTEMPTS_MAX = 5
PROMPT = "words " * 200
"""Its bound is its bytes, so a thousand tokens are plausible."""


pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_proxies")]


def sends_in_turn(case: Case) -> Exchange:
    """Send the replies in order, and the last one repeatedly."""
    waiting = iter(case.replies)
    last = case.replies[-1]

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        await send(next(waiting, last), writer)

    return exchange


async def send(reply: Reply, writer: asyncio.StreamWriter) -> None:
    """Send one reply, as slowly and incompletely as it says."""
    data = http(reply.data, status=reply.status, headers=reply.headers, length=reply.length)
    data = data[: len(data) - reply.cut]
    await asyncio.sleep(reply.pause_s)
    pieces = DRIP_PIECES if reply.drip_s else 1
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        await asyncio.sleep(reply.drip_s / pieces)
        writer.write(data[start : start + size])
        await writer.drain()
    if reply.cut or reply.length is not None:
        writer.close()


async def run_to_the_end(case: Case) -> tuple[ServiceWorld, CallView, int]:
    """Run one call until it has ended."""
    entry = ProviderEntry(needs_key=False, **case.entry)
    policy = POLICY.model_copy(
        update={"attempts_max": ATTEMPTS_MAX, "deadline_s": case.deadline_s or POLICY.deadline_s}
    )
    world = ServiceWorld(policy=policy, entry=entry)
    async with (
        SocketServer(sends_in_turn(case)) as server,
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
def test_a_reply_is_classified_and_billed(case: Case) -> None:
    """Attempts, final state, money, anomalies and texts match the case, and the budget agrees."""
    world, view, requests = asyncio.run(run_to_the_end(case))

    last = view.last
    assert last is not None
    assert (view.state, view.attempt, requests) == (case.ends, case.attempts, case.attempts)
    holds = case.attempts if case.posted is None else case.holds
    expected = (case.posted or 0) + holds * last.hold_nano_usd
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


def test_half_an_answer_is_no_result() -> None:
    """The reply of a failed attempt is kept for operators. The result has only the complete answer of the retry."""
    (case,) = (case for case in CASES if case.name == "broken off, then fine")

    world, view, _ = asyncio.run(run_to_the_end(case))

    (first, second) = (a for a in world.ledger.tables.attempts.values())
    assert b"first half" in (first.reply or b"")
    assert ProviderReply.from_json(second.reply or b"").texts == ("fine",)
    (seen,) = world.ledger.read(
        [AttemptRef(CallKey(view.key.call_id, 1), first.attempt_id)], Bodies.NONE
    )
    assert seen is not None
    assert seen.last is not None
    assert (seen.last.status, seen.last.posted_nano_usd) == ("failed", 25_000)
