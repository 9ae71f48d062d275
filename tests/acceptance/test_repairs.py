"""A real worker repairs an answer of a provider, and the cost of it is seen."""

from __future__ import annotations

import json

from pydantic import BaseModel

from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment


class Invoice(BaseModel):
    """What is asked for: a plain model."""

    total: int
    note: str | None = None


def test_a_broken_answer_is_repaired(deployment: Deployment) -> None:
    """Two attempts, two rows, and the cost of both."""
    bad, good = json.dumps({"total": "much"}), json.dumps({"total": 7, "note": None})
    deployment.provider.script([Rule(reply=[Step(text=bad), Step(text=good)])])
    deployment.ensure_worker()
    org = deployment.org()

    result = deployment.client.submit(deployment.request(org, response_schema=Invoice)).get(
        timeout=60
    )

    assert result.parsed == Invoice(total=7)
    first, repair = deployment.attempts(org)
    assert [(a.kind, a.status) for a in (first, repair)] == [
        ("first", "failed"),
        ("repair", "succeeded"),
    ]
    assert repair.hold_nano_usd > first.hold_nano_usd
    assert min(first.posted_nano_usd, repair.posted_nano_usd) > 0
    cost = first.posted_nano_usd + repair.posted_nano_usd
    assert int(result.cost_usd * 10**9) == cost
    assert result.attempts == 2
    assert bad not in first.error_json
    deployment.assert_audit_is_clean()
