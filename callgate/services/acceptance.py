"""Hand prepared submissions to the ledger, and wait while their organisations have too many open calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from callgate.domain.bounds import ROWS_MAX
from callgate.domain.errors import IdempotencyMismatch, InvalidRequest, OrganisationBusy
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.open_calls import OnBusy, busy_pause_s

BUSY_TIMEOUT_S = 60.0


class Acceptance:
    """
    A batch on its way into the ledger.

    Its caller steps until everything has an answer, and pauses between two steps as it likes: in a thread or in an
    event loop.

    Args:
        store: Stores submissions, and publishes what was created.
        timeout_s: How long it may wait for room.
    """

    def __init__(
        self,
        store: Callable[[Sequence[NewSubmission]], list[Submitted]],
        batch: Sequence[NewSubmission],
        on_busy: OnBusy = OnBusy.RAISE,
        timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._batch = batch
        self._on_busy = on_busy
        self._timeout_s = timeout_s
        deadlines_s = (s.start_within_s for s in batch if s.start_within_s is not None)
        self._deadline_s = min(deadlines_s, default=math.inf)
        self._answers: dict[int, Submitted] = {}
        self._left = list(range(len(batch)))
        self._tries = 0

    @property
    def answers(self) -> list[Submitted]:
        """What became of the batch, in its order; complete after the last step."""
        return [self._answers[n] for n in sorted(self._answers)]

    def step(self, elapsed_s: float, jitter: float) -> float | None:
        """
        Store what is not stored. Return after how many seconds to step again; None: all is stored.

        Args:
            elapsed_s: The seconds since the first step.
            jitter: Between 0 and 1; spreads the clients that wait.

        Raises:
            IdempotencyMismatch, InvalidRequest: One row was refused. The others are stored, as far as there was room.
            OrganisationBusy: There is no room, and it may not wait any longer. What there was room for is stored.
            LedgerUnavailable: The batch is not known to be stored; submitting it again is safe.
        """
        # Later steps ask with one statement whether there is room.
        part = self._left[:ROWS_MAX] if self._tries else self._left
        answers = self._store([self._due(n, elapsed_s) for n in part])
        self._answers.update(zip(part, answers, strict=True))
        require_stored([self._batch[n] for n in part], answers)
        before = len(self._left)
        self._left = [n for n in self._left if self._answers[n].outcome is SubmitOutcome.BUSY]
        if not self._left:
            return None
        self._tries = 1 if self._tries == 0 or len(self._left) < before else self._tries + 1
        return self._pause_s(elapsed_s, jitter)

    def _due(self, n: int, elapsed_s: float) -> NewSubmission:
        """A submission with the time that is left until its deadline."""
        new = self._batch[n]
        left_s = new.start_within_s
        return new if left_s is None else replace(new, start_within_s=left_s - elapsed_s)

    def _pause_s(self, elapsed_s: float, jitter: float) -> float:
        pause_s = busy_pause_s(self._tries - 1, jitter)
        is_over = elapsed_s >= self._timeout_s or elapsed_s + pause_s >= self._deadline_s
        if self._on_busy is OnBusy.RAISE or is_over:
            first = self._left[0]
            raise _busy(self._batch[first], self._answers[first])
        return min(pause_s, self._timeout_s - elapsed_s)


def require_stored(batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
    """
    Raise if the ledger refused a row of a batch for its own sake.

    Raises:
        IdempotencyMismatch, InvalidRequest
    """
    for submission, answer in zip(batch, answers, strict=True):
        if answer.outcome is SubmitOutcome.IDEMPOTENCY_MISMATCH:
            raise IdempotencyMismatch(
                f"idempotency key {submission.idempotency_key!r} of org {submission.org_id!r} "
                "was used before, for another request"
            )
        if answer.outcome is SubmitOutcome.UNSTORABLE:
            raise InvalidRequest(f"the ledger cannot store call {submission.call_id}")


def _busy(submission: NewSubmission, answer: Submitted) -> OrganisationBusy:
    open_calls = answer.open_calls
    assert open_calls is not None
    return OrganisationBusy(submission.org_id, open_calls.calls, open_calls.calls_max)
