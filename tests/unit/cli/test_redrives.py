"""`callgate dead-letters redrive` and `callgate redrives`: one stored operation, planned, started and changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.token_estimator import TokenEstimator
from callgate.cli import redrive_output
from callgate.client import Client
from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.redrives import RedriveState, RedriveTerms
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.services.redrive_runner import AcceptedSchemas, RedriveRunner
from callgate.services.submit import SubmitService
from tests.support.command_line import Shell, SilentQueue, a_dead_call
from tests.support.waiting import until

REDRIVE = ("dead-letters", "redrive")
WHY = ("--reason", "repaired", "--yes", "--no-wait")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive_output, "POLL_S", 0.01)


@pytest.fixture(autouse=True)
def _worker(ledger: MemoryLedger, open_client: Callable[[], Client]) -> Iterator[None]:
    """A worker that does nothing but redrives."""
    with open_client() as client:
        submits = SubmitService(
            ledger=ledger,
            queue=SilentQueue(),
            estimator=TokenEstimator(client.catalogue),
            costs=CostCalculator(client.catalogue),
            validator=AcceptedSchemas(),
            catalogue=client.catalogue,
            now=lambda: datetime.now(UTC),
        )
    runner = RedriveRunner(ledger=ledger, redrives=ledger.redrives, submits=submits)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.01):
            runner.run()

    worker = threading.Thread(target=work)
    worker.start()
    yield
    is_over.set()
    worker.join()


def told(shell: Shell, *arguments: str, code: int = 0) -> Any:
    """The JSON that a command printed."""
    ended, out, err = shell(*arguments, "--json")
    assert ended == code, err
    return json.loads(out)


def newest(ledger: MemoryLedger) -> str:
    """The id of the newest redrive."""
    return str(ledger.redrives.newest(limit=1)[0].redrive_id)


def test_a_dry_run_prices_and_releases_nothing(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """It says what would be refused now. It is stored, so it can be started later."""
    ledger.set_budget("acme", "org", Window.DAY, 1)
    plan = told(shell, *REDRIVE, "--dry-run")

    assert (plan["count"], plan["redrive"]["state"]) == (1, "planned")
    assert plan["worst_case_nano_usd"] > 0
    assert plan["refused_now"] == {"budget_too_small": 1}
    assert [org["org_id"] for org in plan["organisations"]] == ["acme"]
    assert len(ledger.calls(CallFilter(), limit=10)) == 1
    assert ledger.tables.actions[-1].by == By("ann@example.org", "dry run")
    code, _, err = shell(*REDRIVE, "--dry-run")
    assert (code, "would be refused now: 1 budget_too_small" in err) == (0, True)

    started = told(shell, "redrives", "start", newest(ledger), *WHY)
    assert started["redrive"]["state"] in ("running", "done")


def test_a_redriven_call_is_not_redriven_again(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A later generation may have succeeded: another redrive would pay for the answer twice."""
    told(shell, *REDRIVE, *WHY)
    until(lambda: len(ledger.calls(CallFilter(), limit=10)) == 2)

    again = told(shell, *REDRIVE, *WHY, code=1)

    assert (again["count"], again["redrive"]) == (0, None)
    assert json.loads(shell("dead-letters", "list", "--json")[1])["calls"] == []
    assert "without a newer generation" in shell(*REDRIVE, *WHY)[2]


def test_a_redrive_takes_a_maximum_and_terms(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    """An operator can try a few, slowly, before the rest."""
    for content in ("a", "b", "c"):
        a_dead_call(ledger, open_client, content)

    options = ("--max", "2", "--rate", "0.5/s", "--cap-usd", "1", "--stop-percent", "30")
    plan = told(shell, *REDRIVE, *options, "--stop-min", "5", *WHY)

    assert plan["count"] == 2
    assert plan["redrive"]["terms"] == {
        "rate_per_min": 30.0, "cap_nano_usd": 10**9, "stop_share": 0.3, "stop_min": 5,
    }  # fmt: skip
    assert plan["redrive"]["reason"] == "repaired"


def test_another_count_than_expected_starts_nothing(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    code, out, err = shell(*REDRIVE, "--reason", "repaired", "--expect", "2", "--json")

    assert (code, json.loads(out)["error"]["code"]) == (1, "count_differs")
    assert "error: count_differs: you expect 2, and 1 match" in err
    assert ledger.redrives.newest(limit=1)[0].state is RedriveState.ABORTED
    assert len(ledger.calls(CallFilter(), limit=10)) == 1


def test_a_second_payment_needs_an_option(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    """The bill of a call whose worker was lost is unknown."""
    a_dead_call(ledger, open_client)
    (attempt,) = ledger.tables.attempts.values()
    attempt.status = AttemptStatus.UNKNOWN

    code, _, err = shell(*REDRIVE, *WHY)
    assert (code, "error: second_payment_not_allowed" in err) == (1, True)
    assert "1 may be paid twice, because a bill is unknown" in err
    assert shell(*REDRIVE, "--pay-twice", "--skip-unknown", *WHY)[0] == 2
    assert told(shell, *REDRIVE, "--skip-unknown", *WHY)["redrive"]["counts"]["skipped"] == 1
    told(shell, *REDRIVE, "--pay-twice", *WHY)
    until(lambda: len(ledger.calls(CallFilter(), limit=10)) == 2)


def test_a_redrive_is_followed_to_its_end(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """Its next generation is cancelled while the command waits."""

    def cancel() -> None:
        until(lambda: len(ledger.calls(CallFilter(), limit=10)) == 2)
        ledger.end([CallKey(dead.call_id, 2)], code=EndReason.CANCELLED, message="no need")

    other = threading.Thread(target=cancel)
    other.start()
    code, _, err = shell(*REDRIVE, "--reason", "repaired", "--yes")
    other.join()

    assert code == 0
    assert "done: 1 rejected" in err
    shown = told(shell, "redrives", "show", newest(ledger))
    (call,) = shown["calls"]
    assert (call["outcome"], call["code"]) == ("rejected", "cancelled")
    assert call["next_task_id"] == f"{dead.call_id}.2"
    assert told(shell, "redrives", "show", newest(ledger), "--outcome", "failed")["calls"] == []
    assert "cancelled" in shell("redrives", "show", newest(ledger))[1]
    assert "done" in shell("redrives", "list")[1]


def test_a_redrive_is_paused_resumed_and_aborted(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    for content in ("a", "b", "c"):
        a_dead_call(ledger, open_client, content)
    told(shell, *REDRIVE, "--rate", "1", *WHY)
    redrive_id = newest(ledger)

    paused = told(shell, "redrives", "pause", redrive_id, "--reason", "lunch")
    resumed = told(shell, "redrives", "resume", redrive_id, "--reason", "go", "--cap-usd", "2")
    aborted = told(shell, "redrives", "abort", redrive_id, "--reason", "enough")
    code, _, err = shell("redrives", "pause", redrive_id, "--reason", "again")

    assert (paused["state"], paused["cause"]) == ("paused", "operator")
    assert resumed["terms"]["rate_per_min"] == 1.0
    assert resumed["terms"]["cap_nano_usd"] == 2 * 10**9
    assert aborted["state"] == "aborted"
    assert (code, "error: redrive_state_differs" in err) == (1, True)
    assert [redrive["state"] for redrive in told(shell, "redrives", "list")] == ["aborted"]


def test_a_command_that_ends_with_a_paused_redrive_fails(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A script sees that not everything was released."""
    code, _, err = shell(*REDRIVE, "--reason", "repaired", "--yes", "--cap-usd", "0")

    assert code == 1
    assert "paused (cap): 1 pending" in err


def test_refused_calls_are_redriven_too(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    key = a_dead_call(ledger, open_client)
    ledger.tables.calls[key].state = CallState.REJECTED
    ledger.tables.calls[key].end_reason = "budget_exhausted"

    assert told(shell, *REDRIVE, "--dry-run", code=1)["count"] == 0
    plan = told(shell, *REDRIVE, "--refused", "--end-reason", "budget_exhausted", "--dry-run")

    assert plan["count"] == 1


def test_an_unknown_redrive_is_an_error(shell: Shell) -> None:
    redrive_id = "00000000-0000-4000-8000-000000000000"

    for command in ("show", "pause", "resume", "abort", "start"):
        words = () if command == "show" else ("--reason", "x")
        yes = ("--yes",) if command == "start" else ()
        code, _, err = shell("redrives", command, redrive_id, *words, *yes)
        assert (code, "error: redrive_not_found" in err) == (1, True), command
    assert shell("redrives", "show", "7")[0] == 2


def test_terms_are_within_bounds() -> None:
    assert RedriveTerms(redrive_output.parse_rate("2/s")).rate_per_min == 120
    assert redrive_output.parse_rate("30") == redrive_output.parse_rate("30/m") == 30
