"""
Let Celery's own tracer run around tasks whose body runs somewhere else: on the event loop or in a batch.

    begin()       tracer: task_prerun, before_start ─► run() ┐ switch
                                                              │   ... the body runs, for as long as it takes ...
    end(outcome)  tracer: task_postrun, on_success, ... ◄─────┘ switch

The tracer is one synchronous function, so it waits for the body in a greenlet: results, callbacks, errbacks, signals,
hooks and events remain Celery's code, a span that a signal or a wrapped tracer opens lasts as long as the body, and two
deliveries of one task id in one process never mix.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Self

from celery import Task
from greenlet import GreenletExit, getcurrent, greenlet


@dataclass(frozen=True, slots=True)
class BodyResult:
    """How a task's body ended: with a value, or with an error."""

    value: object = None
    error: Exception | None = None

    def unwrap(self) -> object:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class BodyResultTask(Task):  # type: ignore[misc]
    """A task whose body runs elsewhere while Celery's tracer waits for its outcome."""

    abstract = True

    publishes_callbacks = True
    """Whether Celery does what a message asks for after its task: callbacks, errbacks, the rest of a chain or chord."""

    def run(self, *args: Any, **kwargs: Any) -> object:
        """Leave the tracer; come back with the outcome of this very delivery."""
        tracer = getcurrent()
        if not isinstance(tracer, _Tracer):
            raise RuntimeError(f"{self.name} was started by something that cannot run it")
        outcome: BodyResult = tracer.parent.switch()
        return outcome.unwrap()


class _Tracer(greenlet):
    """A tracer that may wait for a body."""


@dataclass(frozen=True, slots=True, eq=False)
class TracerCall:
    """
    What Celery gives a pool to run: its tracer, the tracer's arguments and who hears the end.

    `begin`, `end` and `cut_off` belong to one thread.
    """

    target: Callable[..., tuple[int, object, float]]
    name: str
    task_id: str
    request: dict[str, Any]
    body: tuple[Any, Any, Any]
    """Arguments, keyword arguments and follow-ups (callbacks, errbacks, chain, chord), decoded."""
    callback: Callable[[tuple[int, object, float]], None]
    context: Context = field(default_factory=copy_context)
    """Of the tracer: what its signals set there, the body sees, if it runs in it, and so do the signals at its end."""
    _tracers: list[_Tracer] = field(default_factory=list)
    _results: list[tuple[int, object, float]] = field(default_factory=list)

    @classmethod
    def of(cls, task: BodyResultTask, body: tuple[Any, Any, Any], **rest: Any) -> Self:
        """The trace of one delivery of a task."""
        args, kwargs, publishes_callbacks = body
        return cls(
            body=(args, kwargs, publishes_callbacks if task.publishes_callbacks else {}), **rest
        )

    def begin(self) -> bool:
        """Run the tracer up to the body; False if it wants none, because something before it failed."""
        tracer = _Tracer(self._trace)
        tracer.gr_context = self.context
        self._tracers.append(tracer)
        tracer.switch()
        return not tracer.dead

    def end(self, outcome: BodyResult) -> None:
        """Run the rest of the tracer over the body's outcome."""
        self._tracers.pop().switch(outcome)

    def cut_off(self) -> None:
        """End the tracer of a body that has no outcome: what began ends, and nothing is told of success or failure."""
        self._tracers.pop().throw(GreenletExit)

    @property
    def is_over(self) -> bool:
        """Whether the tracer has ended, and nobody was told yet."""
        return bool(self._results)

    def report(self, runtime_s: float) -> None:
        """Report the delivery, with the time the body took."""
        failed, result, _ = self._results.pop()
        self.callback((failed, result, runtime_s))

    def _trace(self) -> None:
        self._results.append(
            self.target(self.name, self.task_id, self.request, self.body, None, None)
        )
