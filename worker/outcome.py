"""
Let Celery's own tracer finish tasks whose body ran somewhere else: on the event loop or in a batch.

The body's outcome travels inside the request of its delivery and `OutcomeTask.run` hands it to the
tracer. So results, retries, callbacks, errbacks, signals, events and acks remain Celery's code, and
two deliveries of one task id in one process never mix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from celery import Task

_KEY = "callgate_outcome"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task's body ended: with a value, or with an error."""

    value: object = None
    error: Exception | None = None

    def unwrap(self) -> object:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class OutcomeTask(Task):  # type: ignore[misc]
    """A task whose body has already run when Celery's tracer asks for its result."""

    abstract = True

    follow_ups = True
    """Whether Celery does what a message asks for after its task: callbacks, errbacks, the rest of a chain or chord."""

    def run(self, *args: Any, **kwargs: Any) -> object:
        """Give the tracer the outcome of this very delivery."""
        outcome: Outcome | None = self.request.get(_KEY)
        if outcome is None:
            raise RuntimeError(f"{self.name} was started by something that cannot run it")
        return outcome.unwrap()


@dataclass(frozen=True, slots=True)
class Trace:
    """What Celery gives a pool to run: its tracer, the tracer's arguments and who hears the end."""

    target: Callable[..., tuple[int, object, float]]
    name: str
    task_id: str
    request: dict[str, Any]
    body: tuple[Any, Any, Any]
    """Arguments, keyword arguments and follow-ups (callbacks, errbacks, chain, chord), decoded."""
    callback: Callable[[tuple[int, object, float]], None]

    @classmethod
    def of(cls, task: OutcomeTask, body: tuple[Any, Any, Any], **rest: Any) -> Self:
        """The trace of one delivery of a task."""
        args, kwargs, follow_ups = body
        return cls(body=(args, kwargs, follow_ups if task.follow_ups else {}), **rest)

    def finish(self, outcome: Outcome, runtime_s: float) -> None:
        """Trace the outcome, then report it with the time the body took, not the tracer."""
        self.request[_KEY] = outcome
        failed, result, _ = self.target(
            self.name, self.task_id, self.request, self.body, None, None
        )
        self.callback((failed, result, runtime_s))
