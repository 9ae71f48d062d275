"""A reader who has only the command line sees what is wrong, whom it concerns, and what to do, in six situations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.deployment import Deployment, until
from tests.support.processes import Process
from tests.support.situations import PATIENCE_S, SITUATIONS

SHARED = "the provider's shared key; so far only calls of acme failed"
CLOSE = "`callgate breakers close --provider sim --model sim-1 --reason mended`"
REDRIVE = "`callgate dead-letters redrive --fingerprint "
SAID = {
    "no_key": (
        ("doctor", "(missing_credentials; " + SHARED),
        ("doctor", "the worker has no API key sim: put it into the file sim of CALLGATE_WORKER__CRED"),
        ("doctor", "Give the worker a key: set CALLGATE_WORKER__CREDENTIALS__SIM and restart the worker"),
        ("doctor", REDRIVE),
        ("doctor", "can send nothing: sim"),
        ("alerts list", "It concerns " + SHARED),
        ("alerts list", CLOSE),
        ("calls list", "given up at"),
    ),
    "provider_down": (
        ("doctor", "(connection_failed; " + SHARED + "; 20 calls wait): 127.0.0.1:"),
        ("doctor", "ECONNREFUSED: connection refused"),
        ("doctor", "FAIL reachable: no provider can be reached from here: sim (127.0.0.1:"),
        ("alerts list", "ECONNREFUSED: connection refused)). It concerns " + SHARED),
        ("breakers list", "connection_failed: 127.0.0.1:"),
        ("calls list", "provider, tried next about 20"),
    ),
    "quota_used_up": (
        ("doctor", "dead with insufficient_quota, of acme"),
        ("doctor", "Pay, or raise the limit of the account at the provider. Then " + CLOSE),
        ("doctor", REDRIVE),
        ("alerts list", "insufficient_quota. It concerns " + SHARED),
        ("alerts list", REDRIVE),
    ),
    "tenant_over_budget": (
        ("doctor", "rejected with budget_exhausted, of acme"),
        ("doctor", "`callgate budgets set acme`. Refused calls are not tried again: `callgate dead-letters redrive "),
        ("alerts list", "80 % of the budget acme/org/day are used"),
        ("alerts list", "`callgate budgets set acme --daily-usd ... --reason ...`"),
        ("calls list", "there are more than 20: give --limit"),
    ),
    "worker_frozen": (
        ("doctor", "; its calls were taken over"),
        ("doctor", "-> Look at the named process: if it is there and frozen, kill it"),
        ("alerts list", "does not renew its lease since 20"),
        ("calls list", "succeeded"),
    ),
    "catalogue_differs": (
        ("doctor", "WARN workers: 2 alive; catalogue (prices) of "),
        ("doctor", " has the catalogue of this process, and the others have not"),
        ("doctor", "-> Finish the upgrade, or give all workers and clients the same CALLGATE_CATALOGUE"),
        ("alerts list", "1 of 2 workers differs from the others in catalogue (prices): "),
        ("alerts list", "Those others may be the wrong ones: they are as few."),
    ),
}  # fmt: skip
NEVER_SAID = ("<PROVIDER>", "see `transport`", "DuplicateNodenameWarning", "for acme since")


@pytest.fixture
def deployment(services: DevServers, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of its own."""
    with Simulator() as provider, Deployment(services, provider, tmp_path) as deployment:
        yield deployment


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_is_wrong_is_said(deployment: Deployment, name: str) -> None:
    deployment.limit("acme", 10**9)
    SITUATIONS[name](deployment)

    for command, expected in itertools.groupby(SAID[name], key=itemgetter(0)):
        words = [word for _, word in expected]
        until(
            partial(says, deployment, command, words),
            PATIENCE_S,
            partial(said, deployment, command),
        )


def says(deployment: Deployment, command: str, words: Sequence[str]) -> bool:
    """Whether a command prints all of these words, and nothing that helps nobody."""
    text = said(deployment, command)
    assert not [word for word in NEVER_SAID if word in text]
    return all(word in text for word in words)


def said(deployment: Deployment, command: str) -> str:
    """What a command prints."""
    process: Process = deployment.python("reader", ["-m", "callgate", *command.split()])
    process.wait()
    return process.output()
