"""`Tracing` with OpenTelemetry: one span for each part of a call's life, in the trace of its submission."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

from opentelemetry.context import attach, detach
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)

from callgate.adapters.tracing import names
from callgate.adapters.tracing.contexts import below, span_context, text_of
from callgate.adapters.tracing.endpoints import Endpoint
from callgate.domain import trace_context
from callgate.domain.bounds import error_code
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallView
from callgate.domain.delivery import Delivery
from callgate.domain.ledger import Reserved, Settle, Settled, SubmitOutcome, Submitted
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.services.call_lines import AttemptFacts
from callgate.services.delivery_result import DeliveryResult

LINKS_MAX = 32
"""Calls that one submission joined, and that its span is linked to."""
FAILED_RESULTS = {DeliveryResult.WORKER_LOST, DeliveryResult.LEDGER_UNAVAILABLE}


class OtelTracing:
    """
    Makes the spans of one process.

    Args:
        endpoints: Of the catalogue's providers, by name.
        with_content: Whether spans of provider requests hold messages and answers.
        close: Exports what has ended.
    """

    is_on = True

    def __init__(
        self,
        tracer: Tracer,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        with_content: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._tracer = tracer
        self._endpoints = endpoints or {}
        self._with_content = with_content
        self.close = close

    @contextmanager
    def submission(self, requests: Sequence[LLMRequest]) -> Iterator[_Submission]:
        """The span of a submission; see `Tracing.submission`."""
        attributes: dict[str, Any] = {"callgate.submissions": len(requests)}
        if len(requests) == 1:
            attributes |= _of_type(requests[0])
        span = self._tracer.start_span(names.SUBMIT, kind=SpanKind.PRODUCER, attributes=attributes)
        with _current(span):
            yield _Submission(span)

    def call(self) -> AbstractContextManager[_Call]:
        """The span of one delivery; see `Tracing.call`."""
        return _Call(self._tracer)

    @contextmanager
    def request(self, request: LLMRequest, claim: Reserved) -> Iterator[_Request]:
        """The span of a provider request; see `Tracing.request`."""
        endpoint = self._endpoints.get(request.provider) or Endpoint(request.provider)
        attributes = {
            **names.of_request(request, endpoint.preset),
            **endpoint.attributes,
            "callgate.attempt_id": str(claim.ref.attempt_id),
            "callgate.attempt": claim.attempt,
            "callgate.attempt.kind": claim.kind.value,
        }
        if self._with_content:
            attributes[names.INPUT_MESSAGES] = names.input_messages(request.messages)
        parent = get_current_span()
        span = self._tracer.start_span(
            f"{names.CHAT} {request.model}", kind=SpanKind.CLIENT, attributes=attributes
        )
        with _current(span):
            yield _Request(span, parent, self._with_content)

    def settlement(self, refs: Sequence[AttemptRef]) -> _Settlements:
        """A batch that is settled from now on; see `Tracing.settlement`."""
        return _Settlements(self._tracer, {str(r.attempt_id): r.traceparent for r in refs})

    @contextmanager
    def link(self, delivery: Delivery, traceparent: str | None) -> Iterator[Mapping[str, str]]:
        """The span of one link; see `Tracing.link`. A submitter without a trace gets no span."""
        if trace_context.checked(traceparent) is None:
            yield {}
            return
        parent, links = below(traceparent)
        attributes = {
            **_of_call(delivery.key),
            "callgate.submission_id": str(delivery.submission_id),
            "callgate.state": delivery.state.value,
        }
        span = self._tracer.start_span(
            names.LINK, parent, kind=SpanKind.PRODUCER, attributes=attributes, links=links
        )
        with _current(span):
            context = text_of(span)
            yield {trace_context.HEADER: context} if context else {}

    def current(self) -> str | None:
        """The context of the current span."""
        return text_of(get_current_span())

    @contextmanager
    def within(self, traceparent: str | None) -> Iterator[None]:
        """Make a span of another thread the current one; see `Tracing.within`."""
        parent, _ = below(traceparent)
        if parent is None:
            yield
            return
        token = attach(parent)
        try:
            yield
        finally:
            detach(token)


class _Submission:
    def __init__(self, span: Span) -> None:
        self._span = span
        self.traceparent = text_of(span)

    def answered(self, answers: Sequence[Submitted]) -> None:
        if len(answers) == 1:
            self._span.set_attributes(_of_call(answers[0].key))
            self._span.set_attribute("callgate.outcome", answers[0].outcome.value)
        created = sum(a.outcome is SubmitOutcome.CREATED for a in answers)
        self._span.set_attribute("callgate.calls_created", created)
        joined = dict.fromkeys(
            a.traceparent for a in answers if a.outcome is not SubmitOutcome.CREATED
        )
        for traceparent in list(joined)[:LINKS_MAX]:
            if (context := span_context(traceparent)) is not None:
                self._span.add_link(context, {"callgate.link": "joined"})


class _Call:
    """A span that begins when the call is found, as of the arrival of its message."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._arrived_ns = time.time_ns()
        self._current: AbstractContextManager[None] | None = None
        self._span: Span | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._current is not None:
            self._current.__exit__(*exc_info)

    def found(self, view: CallView) -> None:
        parent, links = below(view.traceparent)
        attributes = {
            **_of_call(view.key),
            "callgate.org_id": view.org_id,
            "callgate.call_type": view.call_type,
            "callgate.is_quarantined": view.is_quarantined,
        }
        self._span = self._tracer.start_span(
            names.CALL,
            parent,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=self._arrived_ns,
        )
        self._current = _current(self._span)
        self._current.__enter__()

    def ended(self, result: DeliveryResult) -> None:
        if self._span is None:
            return
        self._span.set_attribute("callgate.result", result.value)
        if result in FAILED_RESULTS:
            _fail(self._span, result.value)


class _Request:
    def __init__(self, span: Span, parent: Span, with_content: bool) -> None:
        self._span = span
        self._parent = parent
        self._with_content = with_content

    def answered(self, answer: ProviderReply | Failure) -> None:
        failure = answer if isinstance(answer, Failure) else answer.failure
        if isinstance(answer, ProviderReply):
            self._span.set_attributes(names.of_reply(answer))
            if answer.provider_request_id:
                self._span.set_attribute("callgate.provider_request_id", answer.provider_request_id)
            if self._with_content:
                self._span.set_attribute(names.OUTPUT_MESSAGES, names.output_messages(answer))
        if failure is not None:
            if failure.status is not None:
                self._span.set_attribute("http.response.status_code", failure.status)
            for span in (self._span, self._parent):
                _fail(span, failure.code)


class _Settlements:
    def __init__(self, tracer: Tracer, spans: Mapping[str, str | None]) -> None:
        self._tracer = tracer
        self._began_ns = time.time_ns()
        self._spans = spans

    def settled(self, facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
        if not settled.is_applied:
            return
        message_span = self._spans.get(facts.attempt_id)
        parent, links = below(message_span or facts.traceparent)
        span = self._tracer.start_span(
            names.SETTLE,
            parent,
            kind=SpanKind.CONSUMER if message_span else SpanKind.INTERNAL,
            attributes=_of_settlement(facts, settle, settled),
            links=links,
            start_time=self._began_ns,
        )
        if settle.status is not AttemptStatus.SUCCEEDED:
            _fail(span, error_code(settle.error or ""))
        span.end()


def _of_settlement(facts: AttemptFacts, settle: Settle, settled: Settled) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        **_of_call(facts.key),
        "callgate.org_id": facts.org_id,
        "callgate.call_type": facts.call_type,
        "callgate.attempt_id": facts.attempt_id,
        "callgate.attempt": facts.attempt,
        "callgate.attempt.status": settle.status.value,
        "callgate.state": settled.state.value,
        "callgate.cost_nano_usd": settle.posted_nano_usd,
    }
    if facts.trace_id:
        attributes["callgate.trace_id"] = facts.trace_id
    return attributes


def _of_call(key: CallKey) -> dict[str, Any]:
    return {"callgate.call_id": str(key.call_id), "callgate.generation": key.generation}


def _of_type(request: LLMRequest) -> dict[str, Any]:
    return {"callgate.org_id": request.org_id, "callgate.call_type": request.call_type}


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """
    Have a span be the current one, and end it. An error is kept as its class only: its text may hold content.
    """
    try:
        with use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as exc:
        _fail(span, type(exc).__name__)
        raise
    finally:
        span.end()


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))
