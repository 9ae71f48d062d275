"""
Links of a memory client: checked and stored as in production, and then applied in this process.

A link whose tasks its app knows in this process is applied eagerly, by Celery's own `apply`, where a worker of the
pipeline would run it. A link to a task that is known by its name only is recorded and not run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from celery import Celery
from celery.canvas import Signature, chain, maybe_signature

from callgate.adapters.broker.links import Links, sendable
from callgate.domain.calls import CallState
from callgate.domain.delivery import Delivery


@dataclass(frozen=True, slots=True)
class LinkCall:
    """A link that was published."""

    task: str
    """The name of the task; of a chain, that of its first one."""
    args: tuple[Any, ...]
    """What the task receives: `{task_id, state}` first, unless the signature is immutable."""
    kwargs: dict[str, Any]
    queue: str | None
    task_id: str
    """Of the link: the id of the submission."""
    is_applied: bool
    """False if the task is not known in this process, and was only recorded."""
    result: Any = None
    """What the task returned; of a chain, its last one."""
    error: BaseException | None = None
    """What the task raised."""


class AppliedLinks(Links):
    """Makes the stored text of links, and remembers whose tasks they name."""

    def __init__(self, app: Celery, *, timeout_s: float) -> None:
        super().__init__(app, timeout_s=timeout_s, asks_broker=False)
        self._own_app = app
        self._apps: dict[str, Celery] = {}
        self.calls: list[LinkCall] = []

    def text(
        self,
        link: Signature | None,
        link_error: Signature | None,
        *,
        traceparent: str | None = None,
    ) -> str | None:
        """The text that the ledger stores; see `Links.text`."""
        text = super().text(link, link_error, traceparent=traceparent)
        for signature in (link, link_error):
            if signature is not None:
                self._apps |= dict.fromkeys(_names(signature), signature.app)
        return text

    def apply(self, delivery: Delivery) -> None:
        """Publish one link: run it here, or record it."""
        chosen = sendable(delivery.link, succeeded=delivery.state is CallState.SUCCEEDED)
        if chosen is None:
            return
        outcome = {"task_id": delivery.key.task_id, "state": delivery.state.value}
        app = self._apps.get(_names(chosen)[0], self._own_app)
        is_applied = all(name in app.tasks for name in _names(chosen))
        place = len(self.calls)
        self.calls.append(_recorded(chosen, outcome, delivery, is_applied=is_applied))
        if is_applied:
            result, error = _applied(_signature(chosen, app), outcome, delivery)
            self.calls[place] = replace(self.calls[place], result=result, error=error)


def _signature(chosen: dict[str, Any], app: Celery) -> Signature:
    """The stored link as a signature of an app, whose tasks are of that app too."""
    if chosen["subtask_type"] == "chain":
        return chain(*(maybe_signature(task, app=app) for task in chosen["kwargs"]["tasks"]))
    return maybe_signature(chosen, app=app)


def _applied(
    signature: Signature, outcome: dict[str, Any], delivery: Delivery
) -> tuple[Any, BaseException | None]:
    """Run it in this thread. What a task raises reaches nobody in production either."""
    try:
        done = signature.apply(args=(outcome,), task_id=str(delivery.submission_id), throw=False)
    except Exception as exc:  # a chain raises what one of its tasks has raised
        return None, exc
    return (None, done.result) if done.failed() else (done.result, None)


def _recorded(
    chosen: dict[str, Any], outcome: dict[str, Any], delivery: Delivery, *, is_applied: bool
) -> LinkCall:
    first = chosen["kwargs"]["tasks"][0] if chosen["subtask_type"] == "chain" else chosen
    before = () if first["immutable"] else (outcome,)
    return LinkCall(
        task=first["task"],
        args=(*before, *first["args"]),
        kwargs=dict(first["kwargs"]),
        queue=first["options"].get("queue"),
        task_id=str(delivery.submission_id),
        is_applied=is_applied,
    )


def _names(signature: Any) -> list[str]:
    """The tasks of a signature."""
    if signature["subtask_type"] == "chain":
        return [task["task"] for task in signature["kwargs"]["tasks"]]
    return [signature["task"]]
