"""`callgate alerts`."""

from __future__ import annotations

import json

import pytest

from callgate.cli.alerts import NOBODY_LOOKS
from callgate.domain.alerts import AlertOutcome, Channel
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.contract.alert_steps import look
from tests.support.command_line import Shell
from tests.support.ledger_under_test import LEASE_S, ORG, LedgerUnderTest, open_memory

REASON = ("--reason", "the receiver works again")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def dead(ledger: LedgerUnderTest) -> None:
    """Let the webhook refuse every message that is due."""
    taken = ledger.alerts.take([Channel.WEBHOOK], limit=10, lease_s=1)
    outcomes = [AlertOutcome(delivery.delivery_id, "HTTP 500") for delivery in taken]
    assert len(ledger.alerts.keep(outcomes, dead_after_s=0)) == len(taken) > 0


def test_alerts_are_listed(shell: Shell, ledger: LedgerUnderTest) -> None:
    freeze = PauseKey(org_id=ORG, is_freeze=True)
    ledger.operations.pause(freeze, by=By("ann", "unpaid"))
    look(ledger)
    assert shell("alerts", "test", "--operator", "bob")[0] == 0
    code, out, err = shell("alerts", "list", "--json")
    assert (code, err) == (0, f"{NOBODY_LOOKS}\n")
    test, frozen = json.loads(out)
    assert (test["kind"], test["message"], test["is_state"]) == (
        "test",
        "This is a test by bob.",
        False,
    )
    assert (frozen["kind"], frozen["org_id"], frozen["webhook"]) == ("frozen", ORG, "")
    assert frozen["message"] == f"{ORG} is frozen by ann: unpaid"
    assert "holds" in shell("alerts", "list", "--org", ORG)[1]

    ledger.operations.resume(freeze, by=By("ann", "paid"))
    look(ledger)
    assert "resolved" in shell("alerts", "list")[1]
    assert shell("alerts", "list", "--holding")[2] == f"nothing was alerted\n{NOBODY_LOOKS}\n"


def test_while_a_worker_is_alive_the_list_is_complete(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """Each line says what to do."""
    ledger.leases.renew("host:1:x", LEASE_S)
    ledger.operations.pause(PauseKey(org_id=ORG, is_freeze=True), by=By("ann", "unpaid"))
    look(ledger)

    _, out, err = shell("alerts", "list")
    assert err == ""
    assert f"When the reason has gone: `callgate unfreeze {ORG} --reason ...`." in out


def test_a_test_says_who_and_returns_its_id(shell: Shell, ledger: LedgerUnderTest) -> None:
    code, out, err = shell("alerts", "test", "--json")

    (line,) = ledger.operations.alerts(limit=10)
    assert (code, json.loads(out)) == (0, {"alert_id": line.alert.alert_id})
    assert line.alert.detail == {"operator": "ann@example.org"}
    assert "within seconds" in err


def test_dead_messages_are_sent_again(shell: Shell, ledger: LedgerUnderTest) -> None:
    shell("alerts", "test")
    dead(ledger)
    assert all(word in shell("alerts", "list")[1] for word in ("dead", "HTTP 500"))

    code, out, _ = shell("alerts", "replay", "--dead", *REASON)
    assert (code, out) == (0, "sent again  1\n")
    assert "pending" in shell("alerts", "list")[1]
    assert ledger.operations.actions(limit=1)[0].action == "alerts.replay"


def test_named_alerts_are_sent_again(shell: Shell, ledger: LedgerUnderTest) -> None:
    shell("alerts", "test")
    (line,) = ledger.operations.alerts(limit=10)

    code, out, err = shell("alerts", "replay", str(line.alert.alert_id), "987", *REASON, "--json")
    assert (code, json.loads(out)) == (0, {"alert_ids": [line.alert.alert_id]})
    assert err == "there is no alert 987\n"


@pytest.mark.parametrize("names", [(), ("--dead", "1")])
def test_a_replay_needs_ids_or_dead(shell: Shell, names: tuple[str, ...]) -> None:
    code, _, err = shell("alerts", "replay", *names, *REASON)

    assert code == 2
    assert "give --dead, or the ids of alerts" in err
