"""One delivery of a coroutine task on its way through the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall

logger = logging.getLogger(__name__)

_FOLLOW_UPS = ("callbacks", "errbacks", "chain", "chord")


class AsyncJob:
    """The delivery, its limits, and the handle by which Celery stops it."""

    def __init__(
        self,
        task: BodyResultTask,
        trace: TracerCall,
        accept: Callable[[int, float], None],
        on_timeout: Callable[[bool, float], None],
        limits_s: tuple[float | None, float | None],
    ) -> None:
        """Prepare; `limits_s` are the soft and the hard time limit."""
        self.task = task
        self.trace = trace
        self.accept = accept
        self.on_timeout = on_timeout
        self.soft_s, self.hard_s = limits_s
        self.coroutine: asyncio.Task[Any] | None = None
        self.is_stopped = False
        """Nobody waits for the outcome any more; it is dropped, and with it the ack."""

    def terminate(self, signal: int | None = None) -> None:
        """Stop the job without a word; callable from any thread and from a signal handler."""
        self.is_stopped = True
        if self.coroutine is not None:
            call_in(self.coroutine.get_loop(), self.coroutine.cancel)

    def end(self, outcome: BodyResult) -> None:
        """Let the tracer hear of the outcome, or end without one."""
        if self.is_stopped:
            self.trace.cut_off()
        else:
            self.trace.end(outcome)

    def fail_to_trace(self) -> None:
        """Log the error of Celery's tracer, or of what wraps it, that is being handled; nobody is told of an end."""
        logger.exception("%s: %s stays unacknowledged", self.task.name, self.trace.task_id)
        self.is_stopped = True

    async def outcome(self) -> BodyResult:
        """Await the body; whatever it raises is an outcome, for nothing may end the loop."""
        args, kwargs, _ = self.trace.body
        try:
            async with asyncio.timeout(self.soft_s) as soft:
                return BodyResult(await self.task.arun(self.trace.request, *args, **kwargs))
        except TimeoutError as error:
            return BodyResult(error=SoftTimeLimitExceeded(self.soft_s) if soft.expired() else error)
        except Exception as error:
            return BodyResult(error=error)
        except BaseException as error:
            # A coroutine that was cancelled from outside, by `terminate` or by the end of the
            # loop, has no outcome. One that raises this by itself has failed.
            current = asyncio.current_task()
            self.is_stopped |= current is not None and current.cancelling() > 0
            return BodyResult(error=RuntimeError(f"task body ended by {error!r}"))

    def may_block(self) -> bool:
        """Ask whether the tracer may store or publish something."""
        ignores_result = self.trace.request.get("ignore_result")
        if ignores_result is None:
            ignores_result = self.task.ignore_result
        publishes_callbacks = self.trace.body[2] or {}
        return (
            not ignores_result
            or self.task.store_errors_even_if_ignored
            or any(map(publishes_callbacks.get, _FOLLOW_UPS))
        )


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call in the loop's thread; a loop that is closed runs nothing, so nothing gets acked."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
