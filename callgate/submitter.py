"""How a client submits: ask every gate, then store step by step, and wait for room between the steps if it may."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from callgate.adapters.broker.links import Links
from callgate.client_clock import ClientClock
from callgate.domain.call_order import Priority
from callgate.domain.ledger import Submitted
from callgate.domain.open_calls import on_busy_of
from callgate.domain.requests import LLMRequest
from callgate.services.acceptance import BUSY_TIMEOUT_S, Acceptance
from callgate.services.submit import SubmissionOptions, SubmitService
from callgate.services.tracing import Tracing

if TYPE_CHECKING:
    from celery.canvas import Signature

OnBusyWord = Literal["raise", "wait"]


class Submitter:
    """Submits requests of one client. The options are those of `Client.submit`."""

    def __init__(
        self, submits: SubmitService, links: Links, tracing: Tracing, clock: ClientClock
    ) -> None:
        self._submits = submits
        self._links = links
        self._tracing = tracing
        self._clock = clock

    def submit(
        self, requests: Sequence[LLMRequest], idempotency_key: str | None = None, **options: Any
    ) -> list[Submitted]:
        """Store a batch, in this thread; see `Client.submit`."""
        with self._tracing.submission(requests) as span:
            acceptance = self._acceptance(requests, idempotency_key, span.traceparent, **options)
            began = self._clock.monotonic()
            while True:
                pause_s = acceptance.step(self._clock.monotonic() - began, self._clock.jitter())
                if pause_s is None:
                    span.answered(acceptance.answers)
                    return acceptance.answers
                self._clock.pause(pause_s)

    async def asubmit(
        self,
        requests: Sequence[LLMRequest],
        idempotency_key: str | None,
        options: Mapping[str, Any],
    ) -> list[Submitted]:
        """Submit without holding a thread while it waits for room."""
        with self._tracing.submission(requests) as span:
            context = span.traceparent
            acceptance = await asyncio.to_thread(
                lambda: self._acceptance(requests, idempotency_key, context, **options)
            )
            began = self._clock.monotonic()
            while True:
                elapsed_s = self._clock.monotonic() - began
                pause_s = await asyncio.to_thread(acceptance.step, elapsed_s, self._clock.jitter())
                if pause_s is None:
                    span.answered(acceptance.answers)
                    return acceptance.answers
                await self._clock.apause(pause_s)

    def _acceptance(
        self,
        requests: Sequence[LLMRequest],
        idempotency_key: str | None,
        traceparent: str | None,
        /,
        *,
        link: Signature | None = None,
        link_error: Signature | None = None,
        force: bool = False,
        priority: Priority = Priority.NORMAL,
        start_before: datetime | None = None,
        on_busy: OnBusyWord = "raise",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Acceptance:
        """Ask every gate; nothing is stored yet."""
        text = self._links.text(link, link_error, traceparent=traceparent)
        batch = [
            self._submits.prepare(
                request,
                idempotency_key=idempotency_key,
                link=text,
                force=force,
                options=SubmissionOptions(priority, start_before),
                traceparent=traceparent,
            )
            for request in requests
        ]
        return self._submits.acceptance(batch, on_busy_of(on_busy), busy_timeout_s)
