"""Turn an ended call into what its caller gets: an `LLMResult`, or the typed error."""

from __future__ import annotations

import json
from decimal import Decimal

from pydantic import BaseModel, ValidationError

from callgate.domain.budget import NANO_PER_USD, BudgetRefusal, RefusalReason
from callgate.domain.errors import (
    BUDGET_ERRORS,
    CallFailed,
    CallgateError,
    CallRejected,
    ResultInvalid,
    ResultPurged,
)
from callgate.domain.ledger import CallState, CallView
from callgate.domain.models import LLMResult, Usage
from callgate.domain.ports import ProviderReply

BUDGET_CODES = {f"budget_{reason}": BUDGET_ERRORS[reason] for reason in RefusalReason}


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


def result_of(view: CallView, schema: type[BaseModel] | None = None) -> LLMResult:
    """
    A fresh result of a call that succeeded.

    Args:
        schema: The caller's Pydantic model; `parsed` is an instance of it.

    Raises:
        ResultInvalid: The stored answer fits the JSON Schema, but not the caller's model.
    """
    assert view.last is not None
    assert view.last.reply is not None
    reply = ProviderReply.from_json(view.last.reply)
    text = reply.texts[0] if reply.texts else ""
    return LLMResult(
        call_id=view.key.call_id,
        generation=view.key.generation,
        text=text,
        texts=reply.texts,
        parsed=_parsed(view, text, schema),
        finish_reason=reply.finish_reason,
        usage=reply.usage or Usage(),
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
            f"call {view.key.task_id}: {where} of the answer does not fit {schema.__name__}: {first['msg']}"
        ) from exc
