"""A tenant whose requests are as large as the ledger takes, past the gates of the client."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.harness import Deployment, Process, until_equal

LARGE = 120
WORDS = 2 * 2**20
SUBMIT = """
SELECT callgate_submit_v1(
    ARRAY[gen_random_uuid()], ARRAY[:org], ARRAY[callgate_call_id_v1(:org, hash)], ARRAY[hash],
    ARRAY['answer'], ARRAY['sim'], ARRAY['sim-1'], ARRAY[1],
    ARRAY[convert_to(replace(:request, 'FILLED', repeat('word ', :words)), 'UTF8')],
    ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[false], ARRAY[false])
  FROM (SELECT sha256(convert_to(:name, 'UTF8')) AS hash) x
"""
STATES = "SELECT state, count(*) FROM llm_call WHERE org_id = :org GROUP BY state"


def test_many_large_requests_do_not_fill_a_workers_memory(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """A worker has as many in its memory as fit, and others' calls go on beside them."""
    hostile, other = deployment.org(), deployment.org()
    request = deployment.request(hostile, "FILLED").model_dump_json()
    for n in range(LARGE):
        deployment.rows(SUBMIT, org=hostile, name=f"large {n}", request=request, words=WORDS)
    process = worker()

    # Swept up, all at once.
    handles = deployment.client.submit_many([deployment.request(other) for _ in range(20)])
    ended = list(deployment.client.as_completed(handles, timeout=60))

    assert len(ended) == 20
    until_equal({"rejected": LARGE}, lambda: _states(deployment, hostile), 60)
    assert process.is_alive()


def _states(deployment: Deployment, org: str) -> dict[str, int]:
    return dict(map(tuple, deployment.rows(STATES, org=org)))
