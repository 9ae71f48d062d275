"""Read back what the ledger keeps of a call: its request; and of an ended one the `LLMResult`, or the typed error."""

from __future__ import annotations

import json
from collections.abc import Collection
from decimal import Decimal

from pydantic import BaseModel, ValidationError

from callgate.domain.budgets import NANO_PER_USD, BudgetRefusal
from callgate.domain.calls import CallState, CallView
from callgate.domain.errors import (
    BUDGET_ERRORS,
    CallFailed,
    CallgateError,
    CallRejected,
    ResultInvalid,
    ResultPurged,
)
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest, LLMResult
from callgate.services.review import flaw_of

NAMED_BY_ROW = ("org_id", "call_type", "provider", "model")
BUDGET_CODES = {f"budget_{reason}": error for reason, error in BUDGET_ERRORS.items()}


def request_of(view: CallView) -> LLMRequest:
    """
    The request of a call, as it was submitted.

    A client writes request and row itself. If they named different organisations, a call would be sent with the API key
    of one and paid from the budget of the other.

    Raises:
        ValueError: It was purged, cannot be read, or is not the one its row is about.
    """
    try:
        request = LLMRequest.from_stored(view.request or b"")
    except ValueError:
        # Its message, and the chain of causes, would quote the prompt.
        raise ValueError(f"the stored request of call {view.key.task_id} cannot be read") from None
    if any(getattr(request, name) != getattr(view, name) for name in NAMED_BY_ROW):
        raise ValueError(f"the stored request is not the one of call {view.key.task_id}")
    return request


def error_of(view: CallView) -> CallgateError | None:
    """Why an ended call has no answer; None if it has one."""
    if view.state is CallState.SUCCEEDED:
        if view.last is None or view.last.reply is None:
            return ResultPurged(f"the answer of call {view.key.task_id} was removed by retention")
        return None
    fields = json.loads(view.error or "{}")
    code, message = fields.get("code", "unknown"), fields.get("message", "")
    if view.state is CallState.DEAD:
        return CallFailed(message, code, view.attempt)
    if code in BUDGET_CODES:
        return BUDGET_CODES[code](BudgetRefusal.from_json(view.error or ""))
    return CallRejected(message, code)


def result_of(
    view: CallView, schema: type[BaseModel] | None = None, *, good_endings: Collection[str] = ()
) -> LLMResult:
    """
    A fresh result of a call that succeeded.

    Args:
        schema: The caller's Pydantic model; `parsed` is an instance of it.
        good_endings: Of the call's provider. Earlier versions called half an answer a success, so what is stored is
            checked again.

    Raises:
        ResultInvalid: The stored answer fits the JSON Schema, but not the caller's model; or it is not whole.
    """
    assert view.last is not None
    assert view.last.reply is not None
    reply = ProviderReply.from_json(view.last.reply)
    if flaw := flaw_of(reply, good_endings):
        raise ResultInvalid(
            f"call {view.key.task_id}: {flaw.message}; force=True makes the call again"
        )
    text = reply.texts[0]
    return LLMResult(
        call_id=view.key.call_id,
        generation=view.key.generation,
        text=text,
        texts=reply.texts,
        tool_calls=reply.tool_calls,
        reasoning=reply.reasoning,
        parsed=None if reply.tool_calls else _parsed(view, text, schema),
        finish_reason=reply.finish_reason,
        usage=view.last.usage,
        cost_usd=Decimal(view.posted_nano_usd) / NANO_PER_USD,
        latency_ms=view.last.latency_ms or 0,
        attempts=view.attempt,
        model=reply.model,
        provider_request_id=reply.provider_request_id,
    )


def _parsed(view: CallView, text: str, schema: type[BaseModel] | None) -> object:
    if schema is None:
        return None
    try:
        return schema.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ResultInvalid(
            f"call {view.key.task_id}: {where} of the answer does not fit {schema.__name__}: {first['msg']};"
            " it is stored and comes again, until the request is submitted with force=True for another"
        ) from exc
