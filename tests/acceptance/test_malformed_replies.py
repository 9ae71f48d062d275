"""Malformed replies of a provider: each ends in a typed outcome, with its money settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callgate.client import Handle
from callgate.domain.errors import CallFailed
from callgate.domain.requests import LLMResult
from tests.support.deployment import Deployment
from tests.support.malformed_provider import CASES, MIB, malformed_provider

pytestmark = pytest.mark.long
TIMEOUT_S = 100.0
ODD = """
[providers.odd]
unlimited = true
base_url = "{base_url}"
needs_key = false

[call_types.odd]
max_output_tokens_default = 50
deadline_s = 15
attempts_max = 2
unknown_wait_s = 0.1
retry_wait_s = 0.1
retry_wait_max_s = 0.2
retry_after_max_s = 0.2

[[prices]]
provider = "odd"
model = "odd-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "acceptance tests"
as_of = 2026-11-01
"""
GOOD_COST = 11 * 1_000 + 7 * 2_000
PRICED = {
    "large": GOOD_COST,
    "half a character": GOOD_COST,
    "NUL": GOOD_COST,
    "a text nested too deeply": GOOD_COST,
    "more cached than read": 11 * 1_000 + 12 * 1_000 + 7 * 2_000,
    "more reasoned than written": 11 * 1_000 + (7 + 8) * 2_000,
    **{case: GOOD_COST for case in CASES if case.startswith(("retry", "encoded"))},
}
"""Replies that say what they cost, or at least what they may have cost; of all others the whole hold is posted."""


def test_every_malformed_reply_ends_in_a_typed_outcome(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Nothing loops, and no worker dies."""
    with malformed_provider() as base_url:
        catalogue = tmp_path / "odd.toml"
        usual = Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text()
        catalogue.write_text(usual + ODD.format(base_url=base_url))
        deployment.stop_workers()
        worker = deployment.worker(CALLGATE_CATALOGUE=str(catalogue))
        org = deployment.org()
        fields: dict[str, Any] = {"call_type": "odd", "provider": "odd", "model": "odd-1"}
        with deployment.open_client(catalogue=str(catalogue)) as client:
            handles = {
                case: client.submit(
                    deployment.request(
                        org, case, **fields, **({"response_schema": {}} if "text" in case else {})
                    )
                )
                for case in CASES
            }
            outcomes = {case: outcome_of(handle) for case, handle in handles.items()}

    assert worker.is_alive()
    lasting = {case for case, outcome in outcomes.items() if isinstance(outcome, str)}
    assert {case: outcomes[case] for case in lasting} == {
        "nested too deeply": "reply_too_large",
        "a text nested too deeply": "invalid_output",
        "a number of a million digits": "invalid_response",
        "huge": "reply_too_large",
        "a bomb": "reply_too_large",
    }
    results = {c: o for c, o in outcomes.items() if isinstance(o, LLMResult)}
    assert results.pop("large").text == "é" * MIB
    assert results.pop("half a character").text == "a?b"
    assert results.pop("NUL").text == "a\x00b"
    assert {result.text for result in results.values()} == {"fine"}
    rows = {row.call_id: row for row in deployment.attempts(org)}
    for case, handle in handles.items():
        row = rows[handle.key.call_id]
        cost = PRICED.get(case, row.hold_nano_usd)
        assert (case, row.posted_nano_usd) == (case, cost)
        assert results.get(case) is None or results[case].attempts == 1 + case.startswith("retry")


def outcome_of(handle: Handle) -> LLMResult | str:
    """The result, or the code of the failure."""
    try:
        return handle.get(timeout=TIMEOUT_S)
    except CallFailed as failure:
        return failure.failure_code
