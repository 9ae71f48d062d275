"""Errors as the ledger stores them: a `Failure` or a refusal as JSON. A client may have written anything."""

from __future__ import annotations

import json
from typing import Any

from callgate.domain.budgets import BudgetRefusal


def parse_error(error: str | None) -> dict[str, Any] | None:
    """Read a stored error; one that is not JSON is a message without a code."""
    if error is None:
        return None
    try:
        return dict(json.loads(error))
    except (ValueError, TypeError, RecursionError):
        return {"code": "unknown", "message": error}


def error_text(error: str | None) -> str:
    """A stored error for people; empty if there is none."""
    fields = parse_error(error)
    if not fields:
        return ""
    message = fields.get("message")
    if message is None and error and "requested_nano_usd" in fields:
        # A budget's refusal as the functions of Postgres write it.
        try:
            message = BudgetRefusal.from_json(error)
        except (ValueError, TypeError, KeyError):
            message = error
    return f"{fields.get('code', 'unknown')}: {message or ''}"
