"""
Run Celery's own tracer around a task body that runs elsewhere: on the event loop, or in a batch.

    begin()      tracer: task_prerun, before_start ─► run() ┐ switch
                                                             │   ... the body runs, for as long as it takes ...
    end(result)  tracer: task_postrun, on_success, ... ◄─────┘ switch

The tracer is one synchronous function, so it waits for the body in a greenlet. Results, callbacks, errbacks, signals,
hooks and events thus remain Celery's code. A span that a signal or a wrapped tracer opens lasts as long as the body.
Two deliveries of one task id in one process never mix.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Self

from celery import Task
from greenlet import GreenletExit, getcurrent, greenlet

Traced = tuple[int, object, float]
"""What a tracer returns, and a request takes: is it a failure, the value or error, the runtime."""


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
    """A task whose body runs elsewhere while Celery's tracer waits for the result."""

    abstract = True

    publishes_callbacks = True
    """Whether Celery publishes what a message asks for: callbacks, errbacks, the rest of a chain or chord."""

    def run(self, *args: Any, **kwargs: Any) -> object:
        """Leave the tracer; return with the result of this delivery's body."""
        tracer = getcurrent()
        if not isinstance(tracer, _Tracer):
            raise RuntimeError(f"{self.name} cannot run in this pool, only in AsyncioPool")
        result: BodyResult = tracer.parent.switch()
        return result.unwrap()


class _Tracer(greenlet):
    """The greenlet of a tracer, which may wait for a body."""


@dataclass(frozen=True, slots=True, eq=False)
class TracerCall:
    """
    One delivery: Celery's tracer, its arguments, and the callback for the result.

    Call `begin`, `end` and `abort` in one thread.
    """

    target: Callable[..., Traced]
    name: str
    task_id: str
    request: dict[str, Any]
    body: tuple[Any, Any, Any]
    """Arguments, keyword arguments and what to publish afterwards (callbacks, errbacks, chain, chord), decoded."""
    callback: Callable[[Traced], None]
    context: Context = field(default_factory=copy_context)
    """The tracer's context. A body that runs in it sees what the tracer's signals set there."""
    _tracers: list[_Tracer] = field(default_factory=list)
    _results: list[Traced] = field(default_factory=list)

    @classmethod
    def of(cls, task: BodyResultTask, body: tuple[Any, Any, Any], **rest: Any) -> Self:
        """Make the tracer call of one delivery, without callbacks if the task publishes none."""
        args, kwargs, callbacks = body
        return cls(body=(args, kwargs, callbacks if task.publishes_callbacks else {}), **rest)

    def begin(self) -> bool:
        """Run the tracer up to the body; False if it ended before, because a hook failed."""
        tracer = _Tracer(self._trace)
        tracer.gr_context = self.context
        self._tracers.append(tracer)
        tracer.switch()
        return not tracer.dead

    def end(self, result: BodyResult) -> None:
        """Run the rest of the tracer, with the body's result."""
        self._tracers.pop().switch(result)

    def abort(self) -> None:
        """End the tracer of a body without a result: spans end, and neither success nor failure is reported."""
        self._tracers.pop().throw(GreenletExit)

    @property
    def is_over(self) -> bool:
        """Whether the tracer has ended and its result is not reported yet."""
        return bool(self._results)

    def report(self, runtime_s: float) -> None:
        """Report the result to the request, with the runtime of the body."""
        failed, result, _ = self._results.pop()
        self.callback((failed, result, runtime_s))

    def _trace(self) -> None:
        self._results.append(
            self.target(self.name, self.task_id, self.request, self.body, None, None)
        )
