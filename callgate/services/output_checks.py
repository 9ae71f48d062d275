"""Answers that are results if they fit their schema, and for how long a batch has them checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from callgate.domain.answers import Answer
from callgate.domain.calls import AttemptRef, AttemptView, CallView
from callgate.domain.errors import OutputUnchecked
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

BATCH_S_MAX = 3.0
"""For how long one batch has answers checked; what is over is left to the due query."""
KEPT_BYTES_MAX = 16 * 2**20
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

    @property
    def ref(self) -> AttemptRef:
        """Which attempt it is."""
        return AttemptRef(self.view.key, self.attempt.attempt_id)

    @property
    def answer(self) -> Answer:
        """What is to be checked."""
        return Answer(self.view.org_id, self.request.response_schema or "{}", self.reply.texts)

    @property
    def weight(self) -> int:
        """What it takes of memory, in bytes, more or less."""
        return len(self.view.request or b"") + len(self.attempt.reply or b"")


class Kept:
    """What a batch keeps to have it checked, and what it must read again for that."""

    def __init__(self) -> None:
        self.unchecked: list[Unchecked] = []
        self.over: list[AttemptRef] = []
        self._bytes = 0
        self._bytes_of: dict[str, int] = {}

    def add(self, unchecked: Unchecked) -> None:
        """Keep it, if there is room for it."""
        org_id, weight = unchecked.view.org_id, unchecked.weight
        own = self._bytes_of.get(org_id, 0) + weight
        if self._bytes + weight > KEPT_BYTES_MAX or own > KEPT_BYTES_MAX // KEPT_SHARE_MAX:
            self.over.append(unchecked.ref)
            return
        self._bytes += weight
        self._bytes_of[org_id] = own
        self.unchecked.append(unchecked)


def failure_of(found: str | OutputUnchecked | None) -> Failure | None:
    """What a finding makes of its attempt: it was paid; another answer may fit, but cannot be cheaper to check."""
    if isinstance(found, OutputUnchecked):
        return Failure(found.code, str(found), False, Billing.BY_USAGE)
    if found is not None:
        why = f"the answer breaks the schema: {found}"
        return Failure("invalid_output", why, True, Billing.BY_USAGE)
    return None
