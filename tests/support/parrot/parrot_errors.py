"""Reads an error, `{"squawk": {"kind": ..., "text": ...}}`, with any status, and the wait that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callgate.adapters.providers.http.own_errors import OwnErrors

CODES = {
    "too fast": "rate_limit_exceeded",
    "unpaid": "insufficient_quota",
    "stranger": "invalid_api_key",
    "nonsense": "invalid_request_error",
    "asleep": "server_error",
}
"""Parrot's kinds of errors as codes of `error_body.STATUS_NAMES`, which say the status of an error in a 200."""


def _error_of(body: Mapping[str, Any]) -> dict[str, object] | None:
    squawk = body.get("squawk")
    if not squawk:
        return None
    if not isinstance(squawk, dict):
        return {"message": squawk}
    kind = squawk.get("kind")
    code = CODES.get(kind, kind) if isinstance(kind, str) else None
    return {"code": code, "message": squawk.get("text") or "an error"}


ERRORS = OwnErrors(_error_of, wait_header="x-back-in")
