"""A tenant sends schemas that are small and expensive to check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from callgate.domain.errors import CallFailed, CallRejected, InvalidSchema
from devkit.simulator.script import Match, Rule, Step
from tests.support.deployment import Deployment, Process, until_equal
from tests.support.direct_submission import submit_without_gates
from tests.support.other_tenants import assert_others_succeed

pytestmark = pytest.mark.long
PATIENCE_S = 60.0


def doubling(levels: int, keyword: str) -> dict[str, Any]:
    """Definitions that refer to the next one twice."""
    definitions: dict[str, Any] = {
        f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)
    }
    definitions[f"a{levels}"] = {"type": "integer"}
    return {"$defs": definitions, "$ref": "#/$defs/a0"}


NODE = {"$ref": "#/$defs/node"}
INNER = {"type": "object", "properties": {"in": NODE}, "required": ["in"]}
TREE = {"$defs": {"node": {"anyOf": [INNER, INNER, {"type": "string"}]}}, **NODE}
"""It looks like an ordinary tree, but an invalid answer is visited twice as often at each level."""
DEEP = '{"in":' * 60 + "1" + "}" * 60
LONG = {"max_output_tokens": 1_000, "call_type": "brief"}
EXPENSIVE = Rule(match=Match(text="deep"), reply=[Step(text=DEEP)])


def test_a_schema_that_multiplies_is_refused_by_client_and_worker(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Nothing is held, sent or paid, and the worker keeps running: 2^40 branches, 2.3 GB, and without an end."""
    bombs = [(doubling(40, "allOf"), "7"), (doubling(18, "anyOf"), '"x"'), ({"$ref": "#"}, "7")]
    process = worker()
    for number, (schema, answer) in enumerate(bombs):
        deployment.provider.script([Rule(match=Match(text="bomb"), reply=[Step(text=answer)])])
        org = deployment.org()
        request = deployment.request(org, f"bomb {number}", response_schema=schema)

        with pytest.raises(InvalidSchema, match="the response schema cannot be used"):
            deployment.client.submit(request)
        handle = submit_without_gates(deployment, request)
        assert_others_succeed(deployment)

        with pytest.raises(CallRejected) as refused:
            handle.get(timeout=PATIENCE_S)
        assert refused.value.reason_code == "invalid_schema"
        assert deployment.attempts(org) == []
        assert process.is_alive()


def test_an_answer_that_is_expensive_to_check_fails_its_own_call_only(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """The check is ended. The call is billed by its usage and not retried."""
    deployment.provider.script([EXPENSIVE])
    process, org = worker(), deployment.org()

    handle = deployment.client.submit(deployment.request(org, "deep", response_schema=TREE, **LONG))
    assert_others_succeed(deployment)

    with pytest.raises(CallFailed) as failed:
        handle.get(timeout=PATIENCE_S)
    assert failed.value.failure_code == "schema_too_costly"
    (attempt,) = deployment.attempts(org)
    assert attempt.status == "failed"
    assert 0 < attempt.posted_nano_usd < attempt.hold_nano_usd
    assert process.is_alive()


def test_many_expensive_answers_delay_no_other_organisation(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Each has its own schema, so each is tried. Other organisations' answers are checked in between."""
    deployment.provider.script([EXPENSIVE])
    process, org = worker(), deployment.org()
    requests = [
        deployment.request(org, f"deep {n}", response_schema={**TREE, "title": str(n)}, **LONG)
        for n in range(4)
    ]

    handles = deployment.client.submit_many(requests)
    until_equal(True, lambda: len(deployment.attempts(org)) > 0)
    assert_others_succeed(deployment)

    ended = list(deployment.client.as_completed(handles, timeout=120))
    assert len(ended) == 4
    codes = [json.loads(row.error_json)["code"] for row in deployment.attempts(org)]
    assert codes == ["schema_too_costly"] * 4
    assert process.is_alive()
