"""The port of those who look for calls, and at one; `LedgerUnavailable` as in `callgate.domain.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.call_history import Body, CallHistory
from callgate.domain.call_pages import CallChart, CallCount, CallPage, PageOf
from callgate.domain.calls import CallKey, CallView
from callgate.domain.reports import By, CallFilter


class CallSearchPort(Protocol):
    """Lists calls, counts them, says what happened to one; cancels it, and shows its bodies."""

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """List calls, newest first, without bodies. A filter that matches few may find none of the oldest."""

    def call_page(self, call_filter: CallFilter, page: PageOf) -> CallPage:
        """Return one page of calls, without bodies. It looks at a bounded number of calls; see `CallPage`."""

    def views(self, keys: Sequence[CallKey]) -> list[CallView | None]:
        """Look at calls, without bodies; None where there is none, or none that this login may read."""

    def call_ids(self, first: UUID, last: UUID, *, limit: int) -> list[UUID]:
        """
        List the call ids from `first` to `last`, in order; nothing unless they begin with the same eight digits.

        Of very many generations in that range the last ones may be left out.
        """

    def count_calls(self, call_filter: CallFilter) -> CallCount:
        """Count calls from the newest on, within the bounds of `CallCount`."""

    def call_chart(self, call_filter: CallFilter, now: datetime) -> CallChart:
        """
        Count calls in steps of time, from `since` to `until` of the filter.

        Sums answer where they can; they know the last day unless the filter says since when. Else calls are counted
        that `count_calls` looks at.

        Raises:
            NotPermitted: The login is a client's, and sums would answer.
        """

    def call_history(self, key: CallKey) -> CallHistory:
        """Return what is kept of one call; empty for one that does not exist or may not be read."""

    def cancel(self, key: CallKey, *, by: By) -> bool:
        """
        Cancel a call that is queued or waiting, and log who did it and why.

        Returns:
            False if it was in another state. Then nothing was changed.
        """

    def show_body(self, key: CallKey, attempt_id: UUID | None, *, by: By) -> Body | None:
        """
        Read the request of a call, or the reply of an attempt, and log who read it and why.

        Returns:
            At most `BODY_MAX_BYTES` of it; None if there is no such call or attempt: then nothing is logged.
        """
