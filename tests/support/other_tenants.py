"""The calls of other organisations, beside those of a hostile one."""

from __future__ import annotations

from tests.support.deployment import Deployment

PATIENCE_S = 60.0
ANSWER = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def assert_others_succeed(deployment: Deployment, count: int = 20) -> None:
    """Assert that another organisation's calls end, with schemas and without."""
    org = deployment.org()
    requests = [deployment.request(org) for _ in range(count)]
    requests += [deployment.request(org, response_schema=ANSWER) for _ in range(count)]
    handles = deployment.client.submit_many(requests)

    for handle in deployment.client.as_completed(handles, timeout=PATIENCE_S):
        handle.get(timeout=1)
    assert [row.status for row in deployment.attempts(org)] == ["succeeded"] * 2 * count
