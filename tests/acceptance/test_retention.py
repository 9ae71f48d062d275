"""Bodies disappear when they should: by the periodic job of a real worker, and by the command."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.client import Handle
from callgate.domain.errors import ResultPurged
from tests.support.command_line import answer_of
from tests.support.deployment import Deployment, until

PATIENCE_S = 30.0


def forgetful_worker(deployment: Deployment, org: str) -> None:
    """Start a worker that purges what this organisation has as soon as it has ended, several times a second."""
    catalogue = deployment.folder / f"{org}.toml"
    declared = (deployment.folder / "catalogue.toml").read_text()
    catalogue.write_text(f'{declared}\n[retention.orgs."{org}"]\nbodies_days = 0\n')
    deployment.worker(
        CALLGATE_CATALOGUE=str(catalogue), CALLGATE_WORKER__MAINTENANCE_INTERVAL_S="0.2"
    )


def is_purged(handle: Handle) -> bool:
    """True if the result is gone; waits for the call's end."""
    try:
        handle.get(timeout=PATIENCE_S)
    except ResultPurged:
        return True
    return False


def callgate(deployment: Deployment, *words: str) -> Any:
    """What a command answers."""
    return answer_of(deployment.open_client, *words)


def spent(deployment: Deployment, org: str) -> int:
    """What an organisation spent today, in nano-USD."""
    (budget,) = deployment.client.operations.budgets(org)
    return budget.spent_nano_usd


@pytest.fixture
def lasting(deployment: Deployment) -> Deployment:
    """The deployment with one worker that keeps everything."""
    deployment.ensure_worker()
    return deployment


def test_the_periodic_job_purges_who_asked_for_it(deployment: Deployment) -> None:
    """That organisation's bodies go by themselves, its accounting stays; everybody else's bodies stay."""
    org, other = deployment.org(), deployment.org()
    forgetful_worker(deployment, org)
    kept = deployment.client.submit(deployment.request(other))
    text = kept.get(timeout=PATIENCE_S).text
    request = deployment.request(org)

    handle = deployment.client.submit(request)
    until(lambda: is_purged(handle), PATIENCE_S)

    (row,) = deployment.attempts(org)
    assert (row.reply, row.status) == (None, "succeeded")
    assert 0 < row.posted_nano_usd == spent(deployment, org)
    assert kept.get(timeout=PATIENCE_S).text == text

    again = deployment.client.submit(request)
    assert (again.collapsed, again.key.generation) == (False, 2)
    until(lambda: is_purged(again), PATIENCE_S)
    assert len(deployment.attempts(org)) == 2


def test_an_organisation_is_erased_by_one_command(lasting: Deployment) -> None:
    """A dry run counts; the purge removes; what was spent stays in the ledger."""
    org, other = lasting.org(), lasting.org()
    mine = lasting.client.submit_many([lasting.request(org) for _ in range(3)])
    theirs = lasting.client.submit(lasting.request(other))
    for handle in [*mine, theirs]:
        handle.get(timeout=PATIENCE_S)
    before = spent(lasting, org)
    erase = ("retention", "purge", "--org", org, "--older-than-days", "0")

    counted = callgate(lasting, *erase, "--dry-run")
    assert (counted["dry_run"], counted["calls"]) == (True, 3)
    assert not any(map(is_purged, mine))

    assert callgate(lasting, *erase, "--yes")["calls"] == 3
    assert all(map(is_purged, mine))
    assert not is_purged(theirs)
    assert spent(lasting, org) == before > 0
