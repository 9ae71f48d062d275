"""Submissions that skip the client's gates, as a hostile client can make them."""

from __future__ import annotations

from uuid import uuid4

from callgate.client import Handle
from callgate.domain import identity
from callgate.domain.ledger import NewSubmission
from callgate.domain.requests import LLMRequest
from tests.support.deployment import Deployment


def submit_without_gates(deployment: Deployment, request: LLMRequest) -> Handle:
    """Call the SQL function directly, without the client's gates."""
    input_hash = identity.input_hash(request)
    submission = NewSubmission(
        submission_id=uuid4(),
        org_id=request.org_id,
        call_id=identity.call_id(request.org_id, input_hash),
        input_hash=input_hash,
        call_type=request.call_type,
        provider=request.provider,
        model=request.model,
        input_token_bound=10,
        request=request.model_dump_json().encode(),
    )
    (answer,) = deployment.client.ledger.submit([submission])
    deployment.client.queue.publish_calls([answer.key])
    return deployment.client.handle(answer.key.task_id)
