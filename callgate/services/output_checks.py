"""Answers that must fit a schema, and how many of them a batch keeps and checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from callgate.domain.answers import Answer
from callgate.domain.calls import AttemptRef, AttemptView, CallView
from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.errors import OutputUnchecked
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.repairs import COMPLAINTS_MAX, invalid_output
from callgate.domain.requests import LLMRequest

BATCH_MAX_S = 3.0
"""How long one batch checks answers. The due query takes the rest later."""
KEPT_MAX_BYTES = 16 * 2**20
"""Answers and their requests that a batch keeps in memory until they are checked; others are read again."""
KEPT_SHARE_MAX = 4
"""One organisation has at most a quarter of it."""


@dataclass(frozen=True, slots=True)
class Unchecked:
    """An attempt that succeeded, if its answer fits its schema."""

    view: CallView
    attempt: AttemptView
    request: LLMRequest = field(repr=False)
    reply: ProviderReply = field(repr=False)
    complaints_max: int = 1
    """See `Answer`."""

    @property
    def ref(self) -> AttemptRef:
        """Which attempt it is."""
        return AttemptRef(self.view.key, self.attempt.attempt_id)

    @property
    def answer(self) -> Answer:
        """What the checker gets."""
        schema = self.request.response_schema or "{}"
        return Answer(self.view.org_id, schema, self.reply.texts, self.complaints_max)

    @property
    def weight(self) -> int:
        """Its approximate size in memory, in bytes."""
        return len(self.view.request or b"") + len(self.attempt.reply or b"")


class Kept:
    """Answers that a batch keeps until they are checked, and attempts that it must read again."""

    def __init__(self) -> None:
        self.unchecked: list[Unchecked] = []
        self.over: list[AttemptRef] = []
        self._bytes = 0
        self._bytes_of: dict[str, int] = {}

    def add(self, unchecked: Unchecked) -> None:
        """Keep it if its size is within the bounds; else note that it must be read again."""
        org_id, weight = unchecked.view.org_id, unchecked.weight
        own = self._bytes_of.get(org_id, 0) + weight
        if self._bytes + weight > KEPT_MAX_BYTES or own > KEPT_MAX_BYTES // KEPT_SHARE_MAX:
            self.over.append(unchecked.ref)
            return
        self._bytes += weight
        self._bytes_of[org_id] = own
        self.unchecked.append(unchecked)


def complaints_max(view: CallView, request: LLMRequest, policy: CallTypePolicy) -> int:
    """How many complaints are worth looking for. One is enough, unless a repair will show all to the model."""
    is_last = view.paid_failures + 1 >= policy.paid_failures_max
    can_repair = view.repairs < policy.repairs_max and request.n == 1
    return COMPLAINTS_MAX if can_repair and not is_last else 1


def failure_of(found: str | OutputUnchecked | None) -> Failure | None:
    """The failure for a check result. A wrong answer may be retried; a costly schema may not."""
    if isinstance(found, OutputUnchecked):
        return Failure(found.code, str(found), False, Billing.BY_USAGE)
    if found is not None:
        return invalid_output(found.splitlines())
    return None
