"""
Flower's pages of tasks, with the states of calls.

To Celery a task of callgate has succeeded when its message was handled, whatever became of the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flower.views.tasks import TasksDataTable, TaskView
from tornado.web import RequestHandler, authenticated

from callgate.adapters.broker.app import CALL_TASK
from callgate.domain.calls import CallKey
from callgate.domain.errors import CallgateError

AWAY = "CALL ?"
"""Shown instead of a state while the database is away, or if the ledger has no such call."""


async def call_states(handler: RequestHandler, task_ids: Iterable[str]) -> dict[str, str]:
    """The states of the calls of some tasks, in capitals as Celery's are."""
    keys = {task_id: key for task_id in task_ids if (key := _key(task_id))}
    if not keys:
        return {}
    try:
        states = await handler.application.source.read(  # type: ignore[attr-defined]
            lambda ledger: ledger.overview.states(list(keys.values()))
        )
    except CallgateError:
        states = {}
    return {
        task_id: states[key].value.upper() if key in states else AWAY
        for task_id, key in keys.items()
    }


class CallTasks(TasksDataTable):  # type: ignore[misc]
    """The rows of the table of tasks. A row of a call has the call's state, and the path of its page."""

    async def get(self) -> None:
        """Answer with Flower's rows, changed."""
        self._rows: dict[str, Any] | None = None
        super().get()
        if self._rows is None:
            return
        rows = self._rows["data"]
        states = await call_states(self, (r["uuid"] for r in rows if r.get("name") == CALL_TASK))
        for row in rows:
            if state := states.get(row["uuid"]):
                row["state"] = state
                row["call"] = f"{self.application.prefix}/calls/{row['uuid']}"
        super().write(self._rows)

    def write(self, chunk: Any) -> None:
        """Keep the rows of Flower until the states are known."""
        if isinstance(chunk, dict):
            self._rows = chunk
        else:
            super().write(chunk)


class CallTask(TaskView):  # type: ignore[misc]
    """The page of a task. That of a call says what became of it."""

    call_state: str | None = None

    @authenticated
    async def get(self, task_id: str) -> None:
        """Show it."""
        self.call_state = (await call_states(self, [task_id])).get(task_id)
        super().get(task_id)


def is_of_callgate(shown: dict[str, Any]) -> bool:
    """Whether a page shows a task or a worker of callgate, which ignore commands."""
    name = getattr(shown.get("task"), "name", None) or ""
    worker = shown.get("worker") or {}
    registered = worker.get("registered") or () if isinstance(worker, dict) else ()
    return name.startswith("callgate.") or any(task.startswith(CALL_TASK) for task in registered)


def _key(task_id: str) -> CallKey | None:
    try:
        return CallKey.from_task_id(task_id)
    except ValueError:
        return None
