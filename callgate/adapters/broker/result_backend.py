"""
A result backend through which Celery's AsyncResult reads the ledger.

It stores nothing: the worker's tasks ignore their results, and the ledger has them.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, states
from celery.backends.base import BaseBackend

from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import CallgateError, CallNotFound, ResultInvalid
from callgate.domain.ports import LedgerPort
from callgate.services.results import error_of, result_of

CELERY_STATES = {
    CallState.QUEUED: states.PENDING,
    CallState.RUNNING: states.STARTED,
    CallState.WAITING: states.RETRY,
    CallState.SUCCEEDED: states.SUCCESS,
    CallState.DEAD: states.FAILURE,
    CallState.REJECTED: states.FAILURE,
}


class LedgerResultBackend(BaseBackend):  # type: ignore[misc]
    """A read-only result backend; a task id is `"{call_id}.{generation}"`."""

    def __init__(self, app: Celery, ledger: LedgerPort, catalogue: Catalogue) -> None:
        super().__init__(app=app)
        self._ledger = ledger
        self._catalogue = catalogue

    def get_task_meta(self, task_id: str, cache: bool = False) -> dict[str, Any]:
        """
        Return the call in Celery's form: status and result (an LLMResult, or the exception).

        Raises:
            LedgerUnavailable: Postgres did not answer.
        """
        try:
            key = CallKey.from_task_id(task_id)
        except ValueError:
            return {"status": states.PENDING, "result": None, "task_id": task_id}
        (view,) = self._ledger.read([key], Bodies.REPLY)
        if view is None:
            return {"status": states.PENDING, "result": None, "task_id": task_id}
        outcome = self._outcome(view)
        # A succeeded call whose answer was purged or is invalid has no result to return.
        is_error = isinstance(outcome, CallgateError)
        return {
            "status": states.FAILURE if is_error else CELERY_STATES[view.state],
            "result": outcome,
            "traceback": None,
            "children": [],
            "task_id": task_id,
        }

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the ledger has the result."""

    def _forget(self, task_id: str) -> None:
        raise CallNotFound("results live in the ledger and are removed by its retention, not here")

    def _outcome(self, view: CallView) -> object:
        if view.state.is_open:
            return None
        try:
            good_endings = self._catalogue.good_endings(view.provider)
            return error_of(view) or result_of(view, good_endings=good_endings)
        except ResultInvalid as exc:
            return exc
