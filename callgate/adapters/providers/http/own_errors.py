"""
Translates the errors and waits of a protocol that does not write them as OpenAI does.

They are translated first. So `error_body`, `refusals` and `retry_after` know one form, in a refusal and in the body of
a 200.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

RETRY_AFTER = "retry-after"


def _no_error(_body: Mapping[str, Any]) -> None:
    """No error but those that `error_body` finds."""


@dataclass(frozen=True, slots=True)
class OwnErrors:
    """Errors of one protocol. Those of gateways, in the usual forms, are still read."""

    error_of: Callable[[Mapping[str, Any]], Mapping[str, object] | None] = _no_error
    """
    The error in a body as `code`, `type`, `status`, `message` and `retry_after`; None if there is none of its own.

    A kind that stands for an HTTP status must say so, by `status` or by a code of `error_body.STATUS_NAMES`: an error
    in a 200 has no other one. Only a name of `error_body.KNOWN_NAMES` is kept.
    """
    wait_header: str = RETRY_AFTER
    """The header with the wait, in seconds or as a date."""

    def translated(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body with its own error where `error_body` looks for one."""
        error = self.error_of(body)
        return {**body, "error": error} if error else body

    def with_wait(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers with their own wait where `retry_after` looks for one."""
        wait = headers.get(self.wait_header)
        return headers if wait is None else {**headers, RETRY_AFTER: wait}


USUAL_ERRORS = OwnErrors()
"""A protocol whose errors need no translation."""
