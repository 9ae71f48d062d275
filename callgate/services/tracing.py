"""
The port of tracing: services say what begins and what it came to, and an adapter makes spans of it.

No method raises. `NO_TRACING` is what every process has until a setting asks for spans: it keeps no state and makes no
object, so it costs a few calls of empty methods for each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from callgate.domain.calls import AttemptRef, CallView
from callgate.domain.delivery import Delivery
from callgate.domain.ledger import Reserved, Settle, Settled, Submitted
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.services.call_lines import AttemptFacts
from callgate.services.delivery_result import DeliveryResult


class SubmissionSpan(Protocol):
    """One `submit` or `submit_many`, from the first gate until the broker has the messages."""

    @property
    def traceparent(self) -> str | None:
        """Its context, which the ledger keeps with the calls; None if there is no span."""

    def answered(self, answers: Sequence[Submitted]) -> None:
        """Say what became of the submissions. Calls that they joined are linked."""


class CallSpan(Protocol):
    """One delivery of a call task, from its arrival until its answer is handed over to settlement."""

    def found(self, view: CallView) -> None:
        """Begin, as of the arrival: this delivery is to run the call. A delivery without it leaves no span."""

    def ended(self, result: DeliveryResult) -> None:
        """Say how the delivery ended."""


class RequestSpan(Protocol):
    """The one provider request of an attempt."""

    def answered(self, answer: ProviderReply | Failure) -> None:
        """Say what came back."""


class SettlementSpans(Protocol):
    """One batch of settlements."""

    def settled(self, facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
        """Make the span of one attempt, which lasts from the beginning of the batch until now."""


class Tracing(Protocol):
    """Makes the spans of one process."""

    @property
    def is_on(self) -> bool:
        """False if no span is made, so that what only spans need can be left out."""

    def submission(self, requests: Sequence[LLMRequest]) -> AbstractContextManager[SubmissionSpan]:
        """The span of a submission, in the caller's trace if there is one."""

    def call(self) -> AbstractContextManager[CallSpan]:
        """The span of one delivery; it becomes the current one when the call is found."""

    def request(self, request: LLMRequest, claim: Reserved) -> AbstractContextManager[RequestSpan]:
        """The span of a provider request, as a child of the current one."""

    def settlement(self, refs: Sequence[AttemptRef]) -> SettlementSpans:
        """A batch that is settled from now on."""

    def link(
        self, delivery: Delivery, traceparent: str | None
    ) -> AbstractContextManager[Mapping[str, str]]:
        """The span of one link that is published, in its submitter's trace; returns headers for its message."""

    def current(self) -> str | None:
        """The context of the current span."""

    def within(self, traceparent: str | None) -> AbstractContextManager[None]:
        """Make a span of another thread the current one, for instrumentations of libraries that are called."""

    def close(self) -> None:
        """Export what has ended, as far as that is possible within a few seconds."""


class _NoSpan:
    traceparent: str | None = None

    def answered(self, answer: object) -> None:
        """Do nothing."""

    def found(self, view: CallView) -> None:
        """Do nothing."""

    def ended(self, result: DeliveryResult) -> None:
        """Do nothing."""

    def settled(self, facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
        """Do nothing."""


_NO_SPAN = _NoSpan()
_NOTHING: nullcontext[_NoSpan] = nullcontext(_NO_SPAN)
_NO_CONTEXT: nullcontext[None] = nullcontext()
_NO_HEADERS: nullcontext[Mapping[str, str]] = nullcontext({})


class NoTracing:
    """Makes no spans."""

    is_on = False

    def submission(self, requests: Sequence[LLMRequest]) -> nullcontext[_NoSpan]:
        """Do nothing."""
        return _NOTHING

    def call(self) -> nullcontext[_NoSpan]:
        """Do nothing."""
        return _NOTHING

    def request(self, request: LLMRequest, claim: Reserved) -> nullcontext[_NoSpan]:
        """Do nothing."""
        return _NOTHING

    def settlement(self, refs: Sequence[AttemptRef]) -> _NoSpan:
        """Do nothing."""
        return _NO_SPAN

    def link(self, delivery: Delivery, traceparent: str | None) -> nullcontext[Mapping[str, str]]:
        """Do nothing."""
        return _NO_HEADERS

    def current(self) -> str | None:
        """There is none."""
        return None

    def within(self, traceparent: str | None) -> nullcontext[None]:
        """Do nothing."""
        return _NO_CONTEXT

    def close(self) -> None:
        """Do nothing."""


NO_TRACING = NoTracing()
