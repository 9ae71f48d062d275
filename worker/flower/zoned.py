"""Pages that are about a time: the days of it are those of the page's time zone."""

from __future__ import annotations

from functools import cached_property
from zoneinfo import ZoneInfo

from worker.flower import words
from worker.flower.page import Page
from worker.flower.periods import Span, span_of


class ZonedPage(Page):
    """A page that knows its time zone, and which time its address means."""

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone that the user has chosen; UTC without a choice."""
        return words.zone_of(self.get_cookie(words.ZONE_COOKIE) or "UTC")

    def span(self, default: str) -> Span:
        """
        Read the time of the address.

        Raises:
            InvalidRequest: There is no such time.
        """
        name = self.word("period") or default
        return self.named_span(name, self.word("from"), self.word("to"))

    def named_span(self, name: str, first: str = "", last: str = "") -> Span:
        """A time by its name; errors as of `span`."""
        return span_of(name, first, last, now=words.now(), zone=self.zone)
