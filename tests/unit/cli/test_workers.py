"""`callgate workers list`: leases, versions, slots, and what differs."""

from __future__ import annotations

import json

import pytest

from callgate.domain.fingerprints import Fingerprint
from tests.support.command_line import Shell
from tests.support.ledger_under_test import LEASE_S, LedgerUnderTest, open_memory

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
OLD = Fingerprint("0.1.9", "0002", "settings", "other")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_workers_are_listed_with_what_differs(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Live ones first. What most of them are made of is what others differ from."""
    for number, made_of in enumerate((OURS, OURS, OLD)):
        ledger.leases.renew(f"host:{number}:x", LEASE_S, slots=8)
        ledger.fingerprints.publish(f"host:{number}:x", made_of)

    lines = json.loads(shell("workers", "list", "--json")[1])
    _, table, note = shell("workers", "list")

    found = {line["worker_id"]: line for line in lines}
    assert found["host:2:x"]["differs_in"] == ["version", "catalogue"]
    assert found["host:0:x"]["differs_in"] == []
    assert (found["host:0:x"]["slots"], found["host:0:x"]["version"]) == (8, "0.2.0")
    assert "version, catalogue" in table
    assert "slots" in note


def test_a_silent_worker_is_told_apart(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Its lease is there, and was not renewed."""
    ledger.leases.renew("host:1:x", LEASE_S, slots=8)
    ledger.age(LEASE_S + 5)

    table = shell("workers", "list")[1]

    (row,) = (line for line in table.splitlines() if line.startswith("host:1:x"))
    assert "silent" in row.split()
