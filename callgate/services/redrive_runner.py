"""
Carry out redrives, a step at a time: price the calls of a plan, release those of a running one.

Any number of workers may run this. The ledger gives a redrive to one of them at a time, and keeps each release in one
transaction with its outcome: a worker that is killed releases nothing twice, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from callgate.domain.call_order import Priority
from callgate.domain.calls import Bodies, CallKey, CallView
from callgate.domain.errors import InvalidRequest
from callgate.domain.ports import LedgerPort
from callgate.domain.redrive_ports import RedrivesPort
from callgate.domain.redrive_rules import submission_id_of
from callgate.domain.redrives import (
    FORGOTTEN_AFTER_S,
    PURGED,
    UNREADABLE,
    PricedCall,
    RedriveState,
    RedriveStep,
)
from callgate.event_log import event_log
from callgate.services.results import request_of
from callgate.services.submit import SubmissionOptions, SubmitService

log = event_log(__name__)

LEASE_S = 60.0
"""How long a worker has for one step. After it, another one takes the redrive."""
STEP_MAX_BYTES = 8 * 2**20
"""Requests that are held at once. The rest of a step is left for the next one."""
FORGOTTEN_MAX = 20


class AcceptedSchemas:
    """`SchemaValidatorPort` for requests whose schema was checked when they were submitted."""

    def check_schema(self, schema: str) -> str | None:
        """Find nothing wrong."""
        return None


class RedriveRunner:
    """One per worker; one thread at a time runs it."""

    def __init__(
        self, *, ledger: LedgerPort, redrives: RedrivesPort, submits: SubmitService
    ) -> None:
        self._ledger = ledger
        self._redrives = redrives
        self._submits = submits

    def run(self) -> bool:
        """
        Do the next step of a redrive.

        Returns:
            Whether there was something to do.

        Raises:
            LedgerUnavailable: The step is done again after its lease, unless it was done.
        """
        step = self._redrives.take(lease_s=LEASE_S)
        if step is None:
            return False
        calls = list(self._priced(step))
        if step.state is RedriveState.PLANNING:
            self._redrives.price(step, calls)
            return True
        created = self._redrives.release(step, calls)
        self._submits.publish(created)
        if created:
            log.info("redrive.released", redrive_id=str(step.redrive_id), calls=len(created))
        return True

    def forget(self) -> None:
        """
        Delete redrives that ended long ago.

        Raises:
            LedgerUnavailable
        """
        self._redrives.forget(age_s=FORGOTTEN_AFTER_S, limit=FORGOTTEN_MAX)

    def _priced(self, step: RedriveStep) -> Iterator[PricedCall]:
        """Price calls one after another, and prepare their submissions if they are to be released."""
        views = self._ledger.read([key for _, key in step.calls], Bodies.REQUEST)
        size_bytes = 0
        for (number, key), view in zip(step.calls, views, strict=False):
            size_bytes += len(view.request or b"") if view else 0
            yield self._price(step, number, key, view)
            if size_bytes > STEP_MAX_BYTES:
                return

    def _price(
        self, step: RedriveStep, number: int, key: CallKey, view: CallView | None
    ) -> PricedCall:
        if view is None or view.request is None:
            return PricedCall(number, refusal=PURGED if view else UNREADABLE)
        try:
            quote = self._submits.quote(request_of(view))
            priced = PricedCall(
                number,
                quote.worst_case_nano_usd,
                quote.input_token_bound,
                quote.request.n * (quote.request.max_output_tokens or 0),
            )
            if step.state is RedriveState.PLANNING:
                return priced
            new = self._submits.prepare_quoted(
                quote,
                submission_id=submission_id_of(step.redrive_id, key),
                force=True,
                inherit_links=True,
                # Nobody waits for it any more as for an interactive call.
                options=SubmissionOptions(min(view.priority, Priority.NORMAL)),
            )
        except InvalidRequest as exc:
            return PricedCall(number, refusal=exc.code)
        except ValueError:
            return PricedCall(number, refusal=UNREADABLE)
        except Exception as exc:
            # One call must not stop the others of its redrive.
            log.error(
                "redrive_call.not_priced",
                redrive_id=str(step.redrive_id),
                call_id=str(key.call_id),
                generation=key.generation,
                reason=type(exc).__name__,
            )
            return PricedCall(number, refusal=UNREADABLE)
        return replace(priced, submission=new)
