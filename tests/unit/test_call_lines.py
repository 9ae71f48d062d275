"""Each call that ends, and each other failed attempt, has one line: what, to whom, what it cost, what to do."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog

from callgate.adapters.providers.http.safe_words import SENTENCES
from callgate.domain.budgets import BudgetRefusal, RefusalReason, Window, usd
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import InvalidRequest
from callgate.domain.ledger import Reserved
from callgate.domain.provider import Billing, Failure
from callgate.domain.remedies import MAY_BE_BILLED, NOT_NEEDED, REMEDIES, UNKNOWN_CODE, remedy_of
from callgate.domain.retry import INVALID_OUTPUT
from callgate.services.calls import CallService
from callgate.services.delivery_result import DeliveryResult
from tests.support.ledger_under_test import a_reserve
from tests.support.service_world import GRACE_S, POLICY, REPLY, REPLY_COST, ServiceWorld
from tests.unit.settlement_steps import SCHEMA

CHECKOUT = Path(__file__).parents[2]
SECRET = f"sk-{uuid4().hex}"
KEY_REFUSED = Failure(
    "authentication_failed", f"what the provider says: {SECRET}", False, Billing.UNBILLED, 401
)
BROKEN = Failure("server_error", "HTTP 500", True, Billing.UNBILLED, 500, "server_error")
CUT_OFF = Failure("timeout", "not complete", True, Billing.UNKNOWN)
ENDINGS = ("call.succeeded", "call.died", "call.rejected", "call.cancelled")
Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    structlog.configure()
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


def about(lines: Lines, key: CallKey) -> list[dict[str, Any]]:
    """The lines about a call: its attempts and its end."""
    names = (*ENDINGS, "attempt.failed", "late_answer.posted")
    found = [line for line in lines if line.get("call_id") == str(key.call_id)]
    return [line for line in found if line["event"] in names]


def test_a_call_that_dies_of_a_401_has_one_line(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit(trace_id="trace-1").key
    world.provider.script = [KEY_REFUSED]

    view = asyncio.run(world.run(key))

    (line,) = about(lines, key)
    assert view.last is not None
    assert (line["event"], line["log_level"], line["status"]) == ("call.died", "error", 401)
    assert (line["reason"], line["cost"]) == ("authentication_failed", usd(0))
    assert (line["org_id"], line["call_type"]) == (view.org_id, view.call_type)
    assert (line["provider"], line["model"]) == (view.provider, view.model)
    assert (line["attempt_id"], line["trace_id"]) == (str(view.last.attempt_id), "trace-1")
    assert line["todo"].startswith("Replace the key: set CALLGATE_WORKER__CREDENTIALS__SIM and")
    assert "callgate breakers close --provider sim --model sim-1" in line["todo"]
    redrive = "`callgate dead-letters redrive --fingerprint [0-9a-f]{16} --reason"
    assert re.search(redrive, line["todo"])


def test_no_line_quotes_a_provider(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit(f"a prompt {SECRET}").key
    world.provider.script = [KEY_REFUSED]

    asyncio.run(world.run(key))

    assert about(lines, key)
    assert SECRET not in repr(lines)


def test_a_failed_attempt_has_a_line_and_the_success_after_it_another(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [BROKEN, REPLY]

    asyncio.run(world.run(key))
    world.clock.pass_time(60)
    world.due.run()
    asyncio.run(world.run(key))

    failed, succeeded = about(lines, key)
    assert (failed["event"], failed["call_state"]) == ("attempt.failed", "waiting")
    assert (failed["reason"], failed["provider_code"]) == ("server_error", "server_error")
    assert failed["again_in_s"] > 0
    assert (succeeded["event"], succeeded["attempts"]) == ("call.succeeded", 2)
    assert (succeeded["cost"], succeeded["kind"]) == (usd(REPLY_COST), "retry")
    assert succeeded["log_level"] == "info"


def test_a_repaired_answer_says_what_both_attempts_cost(lines: Lines) -> None:
    world = ServiceWorld(policy=POLICY.model_copy(update={"repairs_max": 1}))
    key = world.submit(response_schema=SCHEMA).key
    world.provider.script = [
        replace(REPLY, texts=("no json",)),
        replace(REPLY, texts=('{"total": "1"}',)),
    ]

    asyncio.run(world.run(key))
    world.clock.pass_time(60)
    world.due.run()
    asyncio.run(world.run(key))

    failed, succeeded = about(lines, key)
    assert (failed["reason"], failed["cost"]) == ("invalid_output", usd(REPLY_COST))
    assert (succeeded["kind"], succeeded["cost"]) == ("repair", usd(2 * REPLY_COST))


def test_an_unknown_bill_says_where_to_find_it(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [CUT_OFF]

    asyncio.run(world.run(key))

    (line,) = about(lines, key)
    assert (line["event"], line["billing"]) == ("attempt.failed", "unknown")
    assert line["todo"].endswith(MAY_BE_BILLED)
    assert line["cost"] != usd(0)


def test_an_attempt_whose_worker_was_lost_has_a_line(lines: Lines) -> None:
    """The worker that expires it writes the line."""
    world = ServiceWorld()
    key = world.submit().key
    (reserved,) = world.ledger.reserve([a_reserve(key)])
    assert isinstance(reserved, Reserved)

    for _ in range(4):
        world.clock.pass_time(POLICY.deadline_s + GRACE_S)
        world.lease.renew()
        world.due.run()

    line = about(lines, key)[0]
    assert (line["event"], line["reason"]) == ("attempt.failed", "worker_lost")


def test_a_call_over_budget_has_a_line(lines: Lines) -> None:
    world = ServiceWorld(limit_nano_usd=1)
    key = world.submit(trace_id="trace-2").key

    view = asyncio.run(world.run(key))

    assert view.state is CallState.REJECTED
    (line,) = about(lines, key)
    assert (line["event"], line["log_level"]) == ("call.rejected", "warning")
    assert (line["reason"], line["trace_id"]) == ("budget_too_small", "trace-2")
    assert line["org_id"] == "acme"
    refusal = BudgetRefusal.from_json(view.error or "")
    assert f"raise the limit to at least {usd(refusal.requested_nano_usd)} with" in line["todo"]


def test_a_call_over_the_budget_of_its_call_type_names_that_budget(lines: Lines) -> None:
    world = ServiceWorld()
    world.ledger.set_budget("acme", "call_type:test", Window.DAY, 1)
    key = world.submit().key

    asyncio.run(world.run(key))

    (line,) = about(lines, key)
    assert "`callgate budgets set acme --call-type test`" in line["todo"]


def test_a_call_that_no_worker_can_send_has_a_line(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit().key
    del world.providers["sim"]

    asyncio.run(world.llm.execute(key))

    (line,) = about(lines, key)
    assert (line["event"], line["reason"]) == ("call.rejected", "unknown_provider")


def test_a_call_that_kills_its_child_and_has_no_budget_has_a_line(lines: Lines) -> None:
    async def lost(*_: object) -> DeliveryResult:
        return DeliveryResult.WORKER_LOST

    world = ServiceWorld(run_quarantined=lost)
    key = world.submit(org_id="stranger").key
    world.ledger.tables.calls[key].sweeps = 9

    asyncio.run(world.llm.execute(key))

    assert [line["reason"] for line in about(lines, key)] == ["budget_not_configured"]


def test_a_call_that_waits_for_money_has_no_line(lines: Lines) -> None:
    world = ServiceWorld(limit_nano_usd=1)
    key = world.submit(on_budget="wait").key
    world.ledger.set_budget(
        "acme", "org", next(iter(world.ledger.tables.budgets.values())).window, 10**9
    )
    (held,) = world.ledger.reserve(
        [replace(a_reserve(world.submit("big").key), hold_nano_usd=10**9)]
    )

    asyncio.run(world.run(key))

    assert isinstance(held, Reserved)
    assert world.view(key).state is CallState.WAITING
    assert about(lines, key) == []


def test_a_cancelled_call_has_a_line_without_the_operators_words(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit().key
    calls = CallService(world.ledger, world.ledger)

    assert calls.cancel(key, f"because {SECRET}")
    assert not calls.cancel(key, "again")

    assert [line["event"] for line in about(lines, key)] == ["call.cancelled"]
    assert SECRET not in repr(lines)


def test_a_program_that_has_configured_no_log_gets_no_line_on_its_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = ServiceWorld()
    key = world.submit().key

    assert CallService(world.ledger, world.ledger).cancel(key, "not needed")

    assert "cancelled" not in capsys.readouterr().out


def test_settling_twice_writes_one_line(lines: Lines) -> None:
    world = ServiceWorld()
    key = world.submit().key

    asyncio.run(world.run(key))
    for _ in range(2):
        world.ai_call_logger.settle(world.queue.settle_tasks)

    assert [line["event"] for line in about(lines, key)] == ["call.succeeded"]


def test_every_code_of_a_failure_has_a_remedy() -> None:
    codes = {*SENTENCES, *(f"budget_{reason}" for reason in RefusalReason), *_written_codes()}

    assert sorted(codes - REMEDIES.keys()) == []


def test_an_unknown_code_has_a_remedy_too() -> None:
    assert remedy_of("of another version") == UNKNOWN_CODE
    assert remedy_of("conflict") == NOT_NEEDED


def _written_codes() -> Iterator[str]:
    """The first argument of everything that makes a failure, and the codes of gates."""
    makers = {"Failure", "unsent", "unknown", "_paid", "error_json"}
    for file in sorted((CHECKOUT / "callgate").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, first = ast.unparse(node.func), node.args[0]
            if name in makers and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value
    gates = {"UnknownModel", "InputTooLarge", "TooManyPages", "UnpricedModel", "MissingOutputBound"}
    yield from (cls.code for cls in InvalidRequest.__subclasses__() if cls.__name__ in gates)
    yield INVALID_OUTPUT
