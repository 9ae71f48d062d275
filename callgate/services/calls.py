"""Find a call by the text that names it, and cancel it."""

from __future__ import annotations

from uuid import UUID

from callgate.domain.calls import Bodies, CallKey, CallView
from callgate.domain.errors import CallNotFound, InvalidRequest
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort
from callgate.domain.reports import CallFilter, EndReason


class CallService:
    """Finds and cancels single calls."""

    def __init__(self, ledger: LedgerPort, operations: OperationsPort) -> None:
        self._ledger = ledger
        self._operations = operations

    def find(self, text: str, bodies: Bodies = Bodies.NONE) -> CallView:
        """
        Find a call by its task id, or the newest generation of a call id.

        Raises:
            InvalidRequest: The text is neither.
            CallNotFound
            LedgerUnavailable
        """
        key = key_of_task(text) if "." in text else self._newest(text)
        (view,) = self._ledger.read([key], bodies)
        if view is None:
            raise CallNotFound(f"the ledger has no call {text}")
        return view

    def cancel(self, key: CallKey, reason: str) -> bool:
        """Cancel a queued or waiting call; True if it was cancelled."""
        return bool(self._operations.end([key], code=EndReason.CANCELLED, message=reason))

    def _newest(self, text: str) -> CallKey:
        try:
            call_id = UUID(text)
        except ValueError:
            raise InvalidRequest(f"{text!r} is not a call id or task id") from None
        for view in self._operations.calls(CallFilter(call_ids=(call_id,)), limit=1):
            return view.key
        raise CallNotFound(f"the ledger has no call {text}")


def key_of_task(task_id: str) -> CallKey:
    """
    Read a task id.

    Raises:
        InvalidRequest: The text is not a task id of callgate.
    """
    try:
        return CallKey.from_task_id(task_id)
    except ValueError as exc:
        raise InvalidRequest(f"{task_id!r} is not a task id of callgate") from exc
