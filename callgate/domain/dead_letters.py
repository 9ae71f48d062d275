"""
What operators see of calls that ended without an answer: groups, the calls of a group, links that did not arrive.

A dead letter is a dead call that no later generation has replaced. A refusal is a rejected one. Dead letters are
grouped by the fingerprint of their error, refusals by their end reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from callgate.domain.bounds import reason_json
from callgate.domain.calls import CallKey, CallState
from callgate.domain.reports import By, CallFilter, EndReason

LATELY = timedelta(days=1)
"""What was first seen within it is new; what was seen before and within it comes back."""
GROUPS_MAX = 100
LOOKED_MAX = 10_000
"""Calls that one look at all groups reads. Each group has its share of them."""
PAID_MAX = 250
"""Calls whose attempts are summed up for it: these are looked up one by one."""
LISTED_MAX = 500
"""Calls, links or messages of one page."""


class Badge(StrEnum):
    """What an operator should know of a group before anything else."""

    AGAIN = "again"
    """Some of its calls had a generation before that ended alike: whatever was repaired did not help."""
    NEW = "new"
    RECURRING = "recurring"
    QUIET = "quiet"
    """Nothing was added lately."""


@dataclass(frozen=True, slots=True)
class EndGroup:
    """Calls that ended alike, without an answer, and that no later generation has replaced."""

    state: CallState
    """Dead or rejected."""
    name: str
    """Of dead letters the fingerprint; of refusals the end reason."""
    reason: str
    """The end reason of the newest."""
    providers: tuple[str, ...]
    """Five of them at most, as of the models."""
    models: tuple[str, ...]
    sample_error: str
    """Of the newest."""
    count: int
    is_more: bool
    """True if older ones were not looked at: all numbers are of the newest ones."""
    orgs: int
    first_at: datetime
    """When the first one was submitted that ever ended so, replaced and discarded ones included."""
    last_at: datetime
    """When one of them last ended, as far as an attempt tells; else when it was submitted."""
    posted_nano_usd: int
    """What their attempts have posted."""
    uncounted: int
    """Calls with attempts that are not in that sum, the oldest ones."""
    again: int
    """How many had a generation before that ended alike."""

    def badge(self, now: datetime) -> Badge:
        """What an operator should know first."""
        if self.again:
            return Badge.AGAIN
        if now - self.last_at > LATELY:
            return Badge.QUIET
        return Badge.NEW if now - self.first_at <= LATELY else Badge.RECURRING


@dataclass(frozen=True, slots=True)
class Place:
    """After which call a list goes on, newest first."""

    at: datetime
    key: CallKey


@dataclass(frozen=True, slots=True)
class EndedCall:
    """One call of a group."""

    key: CallKey
    org_id: str
    call_type: str
    provider: str
    model: str
    attempts: int
    created_at: datetime
    ended_at: datetime | None
    """When its last attempt was posted; None: it has none."""
    error: str
    posted_nano_usd: int
    unknown_attempts: int
    """Attempts whose outcome is unknown: another generation may be paid a second time."""
    is_again: bool
    """True if the generation before ended alike."""

    @property
    def place(self) -> Place:
        """Where a list of calls goes on after this one."""
        return Place(self.created_at, self.key)


def discard_error(by: By) -> str:
    """
    The error of a discarded call, as the ledger stores it.

    Raises:
        InvalidRequest: The reason is too long.
    """
    return reason_json(EndReason.DISCARDED, f"{by.reason} (by {by.operator})")


@dataclass(frozen=True, slots=True)
class UndeliveredLink:
    """A link of an ended call that the broker did not take."""

    submission_id: UUID
    key: CallKey
    org_id: str
    state: CallState
    """Of its call."""
    tries: int
    why: str
    try_at: datetime | None
    """When it is tried again; None: it was given up."""
    given_up_at: datetime | None
    is_purged: bool
    """True if its content was removed: it cannot be tried again."""


@dataclass(frozen=True, slots=True)
class UnprocessableLine:
    """An unprocessable message without its content."""

    message_id: int
    at: datetime
    queue: str
    reason: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """After which given-up link a list goes on, newest first."""

    at: datetime
    submission_id: UUID


class EndedCallsPort(Protocol):
    """What operators ask about calls without an answer. `LedgerUnavailable` as in `callgate.domain.ports`."""

    def end_groups(
        self,
        which: CallFilter,
        *,
        groups_max: int = GROUPS_MAX,
        looked_max: int = LOOKED_MAX,
        paid_max: int = PAID_MAX,
    ) -> list[EndGroup]:
        """
        Group dead letters, or refusals if the filter's state is rejected: the one that was added to last comes first.

        The organisation, the times of submission and the name of a group narrow; other fields of the filter do not.

        Args:
            groups_max: So many groups that were added to last.
            looked_max: Calls that are looked at, in all groups together. Each group has its share, 100 at least; of one
                organisation all groups share them.
            paid_max: Calls whose attempts are summed up, the newest of each group, 10 at least.
        """

    def ended_calls(
        self, which: CallFilter, *, after: Place | None = None, limit: int
    ) -> list[EndedCall]:
        """
        List the calls of one group, newest first.

        The filter names the group: by fingerprint, or a rejected one by end reason. Only the newest 30,000 are looked
        at.
        """

    def discard(self, keys: Sequence[CallKey], *, by: By) -> list[CallKey]:
        """
        Discard up to a thousand dead letters: they become rejected; and log who did it and why. Their links are due.

        Returns:
            Those that were still dead. If there is none, nothing is logged.
        """

    def failing_links(self, org_id: str | None = None, *, limit: int) -> list[UndeliveredLink]:
        """List links that were refused and are tried again, those that are tried first."""

    def given_up_links(
        self, org_id: str | None = None, *, after: GivenUp | None = None, limit: int
    ) -> list[UndeliveredLink]:
        """List links that were given up, newest first."""

    def retry_links(self, submission_ids: Sequence[UUID], *, by: By) -> list[UUID]:
        """
        Have links tried again at once, with as many tries as a new one, and log who did it and why.

        Returns:
            Those that are tried. The others are delivered, purged or unknown. Of none, nothing is logged.
        """

    def unprocessable_lines(
        self, *, before_id: int | None = None, limit: int
    ) -> list[UnprocessableLine]:
        """List messages that named no call, newest first."""
