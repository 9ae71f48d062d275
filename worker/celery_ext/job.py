"""One delivery of a coroutine task on its way through the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall

log = structlog.get_logger(__name__)

_CALLBACKS = ("callbacks", "errbacks", "chain", "chord")


class AsyncJob:
    """The delivery, its time limits, and the handle by which Celery stops it."""

    def __init__(
        self,
        task: BodyResultTask,
        tracer_call: TracerCall,
        accept: Callable[[int, float], None],
        on_timeout: Callable[[bool, float], None],
        limits_s: tuple[float | None, float | None],
    ) -> None:
        """Prepare; `limits_s` are the soft and the hard time limit."""
        self.task = task
        self.tracer_call = tracer_call
        self.accept = accept
        self.on_timeout = on_timeout
        self.soft_s, self.hard_s = limits_s
        self.coroutine: asyncio.Task[Any] | None = None
        self.is_stopped = False
        """The result is dropped, and the message is not acknowledged."""

    def terminate(self, signal: int | None = None) -> None:
        """Stop the job without a result; callable from any thread and from a signal handler."""
        self.is_stopped = True
        if self.coroutine is not None:
            call_in(self.coroutine.get_loop(), self.coroutine.cancel)

    def end(self, result: BodyResult) -> None:
        """Give the tracer the result, or abort it if the job was stopped."""
        if self.is_stopped:
            self.tracer_call.abort()
        else:
            self.tracer_call.end(result)

    def log_tracer_error(self) -> None:
        """Log the current error of Celery's tracer, or of what wraps it; the message stays unacknowledged."""
        log.exception(
            "message.not_acknowledged", task=self.task.name, task_id=self.tracer_call.task_id
        )
        self.is_stopped = True

    async def run_body(self) -> BodyResult:
        """Await the body. Whatever it raises becomes its result, because no error may end the loop."""
        args, kwargs, _ = self.tracer_call.body
        try:
            async with asyncio.timeout(self.soft_s) as soft:
                value = await self.task.arun(self.tracer_call.request, *args, **kwargs)
                return BodyResult(value)
        except TimeoutError as error:
            return BodyResult(error=SoftTimeLimitExceeded(self.soft_s) if soft.expired() else error)
        except Exception as error:
            return BodyResult(error=error)
        except BaseException as error:
            # Cancelled from outside, by `terminate` or at the end of the loop: there is no result. A body that raises
            # such an error by itself has failed.
            current = asyncio.current_task()
            self.is_stopped |= current is not None and current.cancelling() > 0
            return BodyResult(error=RuntimeError(f"task body ended by {error!r}"))

    def may_block(self) -> bool:
        """Whether the tracer may store a result or publish a callback."""
        ignores_result = self.tracer_call.request.get("ignore_result")
        if ignores_result is None:
            ignores_result = self.task.ignore_result
        callbacks = self.tracer_call.body[2] or {}
        return (
            not ignores_result
            or self.task.store_errors_even_if_ignored
            or any(map(callbacks.get, _CALLBACKS))
        )


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call in the loop's thread; without effect on a closed loop."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
