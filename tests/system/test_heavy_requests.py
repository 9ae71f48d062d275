"""A tenant stores requests that are as large as the ledger allows, or costly to parse, without a client."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.deployment import Deployment, Process, until_equal
from tests.support.other_tenants import assert_others_succeed

LARGE = 120
WORDS = 2 * 2**20
LISTS = 10 * 2**20
SUBMIT = """
SELECT callgate_submit_v2(
    ARRAY[gen_random_uuid()], ARRAY[:org], ARRAY[callgate_call_id_v1(:org, hash)], ARRAY[hash],
    ARRAY['answer'], ARRAY['sim'], ARRAY['sim-1'], ARRAY[1],
    ARRAY[convert_to(replace(:request, 'FILLED', repeat(:word, :words)), 'UTF8')],
    ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[false], ARRAY[false], ARRAY[1::smallint], ARRAY[NULL::float8])
  FROM (SELECT sha256(convert_to(:name, 'UTF8')) AS hash) x
"""
STATES = "SELECT state, count(*) FROM llm_call WHERE org_id = :org GROUP BY state"


def test_many_large_requests_do_not_fill_a_workers_memory(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """A worker loads only as many as fit into its memory, and runs the calls of others meanwhile."""
    hostile = deployment.org()
    request = deployment.request(hostile, "FILLED").model_dump_json()
    for n in range(LARGE):
        deployment.rows(
            SUBMIT, org=hostile, name=f"large {n}", request=request, word="word ", words=WORDS
        )
    process = worker()

    # The sweep publishes all of them at once.
    assert_others_succeed(deployment)

    until_equal({"rejected": LARGE}, lambda: _states(deployment, hostile), 60)
    assert process.is_alive()


@pytest.mark.parametrize("field", ["unknown", "stop", "response_schema"])
def test_a_request_that_is_costly_to_parse_ends_its_own_call_only(
    deployment: Deployment, worker: Callable[..., Process], field: str
) -> None:
    """Ten million empty lists need gigabytes as objects, and many seconds of the event loop."""
    hostile = deployment.org()
    lists = "[FILLED[]]"
    value = json.dumps(f'{{"a":{lists}}}') if field == "response_schema" else lists
    request = deployment.request(hostile).model_dump(mode="json", exclude={field})
    text = f'{json.dumps(request)[:-1]},"{field}":{value}}}'
    for n in range(3):
        deployment.rows(
            SUBMIT, org=hostile, name=f"{field} {n}", request=text, word="[],", words=LISTS
        )
    process = worker()

    assert_others_succeed(deployment)

    until_equal({"rejected": 3}, lambda: _states(deployment, hostile), 60)
    assert process.is_alive()


def _states(deployment: Deployment, org: str) -> dict[str, int]:
    return dict(map(tuple, deployment.rows(STATES, org=org)))
