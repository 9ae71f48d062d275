"""`/calls`: a search in one box of words. The URL is the view."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from callgate.domain.call_pages import CallChart, PageOf, Position
from callgate.domain.call_words import WORDS, parse_words, with_words
from callgate.domain.calls import CallState
from callgate.domain.errors import InvalidWords
from callgate.domain.reports import CallFilter
from worker.flower.page import Page
from worker.flower.words import ZONE_COOKIE, zone_of

LISTED = 50
PERIODS = (("1h", "1 h"), ("24h", "24 h"), ("7d", "7 d"), ("30d", "30 d"), ("365d", "1 y"))
"""What is offered for `since:`, and how it is called."""


class Search(Page):
    """What the pages of a search share."""

    tab = "calls"

    def meant(self) -> CallFilter:
        """
        The words of the query, read now.

        Raises:
            InvalidWords
        """
        zone = zone_of(self.get_cookie(ZONE_COOKIE) or "UTC")
        return parse_words(self.word("q"), now=datetime.now(UTC), zone=zone)

    def narrowed(self, **changes: str | None) -> str:
        """The link to the same search with other words, by name; None takes a word away."""
        return self.link("/calls", q=self.changed(**changes))

    def changed(self, **changes: str | None) -> str:
        """The same search with other words."""
        try:
            return with_words(self.word("q"), changes)
        except InvalidWords:
            return with_words("", changes)


class Calls(Search):
    """Calls, newest first, a page at a time."""

    path, name, title = "/calls", "calls", "Calls"

    async def get(self) -> None:
        """Show a page of the search."""
        try:
            which, page = self.meant(), self._page()
        except InvalidWords as error:
            self.set_status(400)
            self._show(fault=str(error), found=None, which=CallFilter())
            return
        found = await self.read(lambda ledger: ledger.operations.call_page(which, page))
        self._show(fault=None, found=found, which=which)

    def _show(self, **values: Any) -> None:
        self.show("calls.html", words=WORDS, states=tuple(CallState), periods=PERIODS, **values)

    def _page(self) -> PageOf:
        older, newer = self.word("older"), self.word("newer")
        return PageOf(
            LISTED,
            older_than=Position.parse(older) if older else None,
            newer_than=Position.parse(newer) if newer and not older else None,
        )


class CallsScope(Search):
    """How many calls a search matches, and when they came in: a part of the page of calls, which comes later."""

    path, name, title = "/calls/(?:scope)", "calls_scope", "Calls"

    async def get(self) -> None:
        """Count them."""
        try:
            which = self.meant()
        except InvalidWords as error:
            self.set_status(400)
            self.finish(str(error))
            return
        now = datetime.now(UTC)
        count, chart = await self.read(
            lambda ledger: (
                ledger.operations.count_calls(which),
                ledger.operations.call_chart(which, now),
            )
        )
        base = self.changed(since=None, until=None)
        self.show("calls_scope.html", count=count, chart=chart, drawn=drawn(chart), base=base)


def drawn(chart: CallChart) -> str:
    """The chart as JSON, for `call_chart.js`: times in seconds, and for each name the count of each step."""
    times = sorted({int(at.timestamp()) for steps in chart.counts.values() for at in steps})
    # Steps without any are there too.
    steps = range(times[0], times[-1] + 1, chart.step_s) if times else ()
    counts = {
        name: [found.get(datetime.fromtimestamp(at, UTC), 0) for at in steps]
        for name, found in sorted(chart.counts.items())
    }
    return json.dumps(
        {
            "step_s": chart.step_s,
            "since": chart.since.timestamp(),
            "until": chart.until.timestamp(),
            "times": list(steps),
            "counts": counts,
        }
    )
