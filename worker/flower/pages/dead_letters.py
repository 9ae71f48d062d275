"""`/dead-letters`: what failed or was refused, in groups; links that did not arrive; messages that are no calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.domain.bounds import NAME_CHARS_MAX
from callgate.domain.calls import CallKey, CallState
from callgate.domain.dead_letters import (
    GROUPS_MAX,
    Badge,
    EndedCall,
    EndGroup,
    GivenUp,
    Place,
    UndeliveredLink,
)
from callgate.domain.errors import InvalidRequest
from callgate.domain.reports import By, CallFilter
from callgate.domain.stored_errors import error_text
from callgate.services.discards import DISCARDED_MAX, DiscardService
from worker.flower import words
from worker.flower.periods import EVER, NAMES
from worker.flower.source import Ledger
from worker.flower.zoned import ZonedPage

SHOWN_MAX = 50
PERIODS = {**{n: NAMES[n] for n in ("today", "7d", "30d")}, EVER: "Ever"}
VIEWS = {"dead": "Dead letters", "refused": "Refusals", "links": "Links", "messages": "Messages"}
BADGES = {
    Badge.AGAIN: "failed again",
    Badge.NEW: "new",
    Badge.RECURRING: "recurring",
    Badge.QUIET: "quiet",
}
MEANINGS = {
    Badge.AGAIN: "Some of them were tried again by an operator or a caller, and ended alike.",
    Badge.NEW: "First seen within the last 24 hours.",
    Badge.RECURRING: "Seen before, and again within the last 24 hours.",
    Badge.QUIET: "Nothing was added within the last 24 hours.",
}
STATES = {"dead": CallState.DEAD, "refused": CallState.REJECTED}


class EndedPage(ZonedPage):
    """What the pages of dead letters have in common: which calls an address means."""

    tab = "dead_letters"

    def shown(self) -> str:
        """Which of the four views is asked for."""
        view = self.word("show") or "dead"
        if view not in VIEWS:
            raise InvalidRequest(f"{view[:20]!r} is not one of {', '.join(VIEWS)}")
        return view

    def chosen(self, view: str) -> CallFilter:
        """The calls that are meant, without the name of a group."""
        span = self.span("7d")
        return CallFilter(
            org_id=self.bounded("org") or None,
            state=STATES.get(view, CallState.DEAD),
            since=span.since,
            until=span.until,
        )

    def bounded(self, name: str) -> str:
        """An argument that is a name of the ledger."""
        text = self.word(name)
        if len(text) > NAME_CHARS_MAX or "\0" in text:
            raise InvalidRequest(f"{text[:20]!r}... is no name")
        return text

    def address(self, path: str = "/dead-letters", **changes: object) -> str:
        """The address of this view with some changes."""
        names = ("show", "org", "period", "from", "to")
        kept = {name: self.word(name) for name in names}
        return self.link(path, **{**kept, **changes})


class DeadLetters(EndedPage):
    """Groups, links or messages."""

    path, name, title = "/dead-letters", "dead_letters", "Dead letters"

    async def get(self) -> None:
        """Show one of the four views."""
        view = self.shown()
        shared = {"view": view, "views": VIEWS, "address": self.address, "shown_max": SHOWN_MAX}
        if view == "links":
            await self._links(shared)
        elif view == "messages":
            await self._messages(shared)
        else:
            which = self.chosen(view)
            groups = await self.read(lambda ledger: ledger.ended.end_groups(which))
            self.show(
                "dead_letters.html",
                **shared,
                **_words_of_groups(),
                groups=groups,
                org_id=which.org_id,
                period=self.span("7d").name,
                is_cut=len(groups) >= GROUPS_MAX,
                group_link=lambda group: self.address("/dead-letters/group", name=group.name),
            )

    async def post(self) -> None:
        """Have links tried again."""
        ids = [_uuid(text) for text in self.get_body_arguments("link")[:SHOWN_MAX]]

        def retry(ledger: Ledger, by: By) -> int:
            return len(ledger.ended.retry_links(ids, by=by))

        await self.change(
            retry,
            then=self.address(show="links"),
            done=lambda tried: (
                f"{tried} of {len(ids)} links are tried again now."
                if tried
                else "Nothing was changed: no link that can be tried again was chosen."
            ),
        )

    async def _links(self, shared: dict[str, object]) -> None:
        org_id, after = self.bounded("org") or None, self._given_up()

        def read(ledger: Ledger) -> tuple[list[UndeliveredLink], list[UndeliveredLink]]:
            failing = [] if after else ledger.ended.failing_links(org_id, limit=SHOWN_MAX)
            given_up = ledger.ended.given_up_links(org_id, after=after, limit=SHOWN_MAX + 1)
            return failing, given_up

        failing, given_up = await self.read(read)
        last = given_up[SHOWN_MAX - 1] if len(given_up) > SHOWN_MAX else None
        self.show(
            "undelivered_links.html",
            **shared,
            org_id=org_id,
            failing=failing,
            given_up=given_up[:SHOWN_MAX],
            newest=after and self.address(),
            older=last and self.address(at=last.given_up_at, id=last.submission_id),
        )

    async def _messages(self, shared: dict[str, object]) -> None:
        before = _number(self.word("before"))
        lines = await self.read(
            lambda ledger: ledger.ended.unprocessable_lines(before_id=before, limit=SHOWN_MAX + 1)
        )
        has_more = len(lines) > SHOWN_MAX
        self.show(
            "unprocessable.html",
            **shared,
            lines=lines[:SHOWN_MAX],
            newest=before and self.address(),
            older=has_more and self.address(before=lines[SHOWN_MAX - 1].message_id),
        )

    def _given_up(self) -> GivenUp | None:
        at = self.word("at")
        return GivenUp(_moment(at), _uuid(self.word("id"))) if at else None


class DeadLetterGroup(EndedPage):
    """The calls of one group, and what can be done with all of them."""

    path, name, title = "/dead-letters/group", "dead_letter_group", "Group"

    def which(self) -> CallFilter:
        """The calls of the group."""
        view, name = self.shown(), self.bounded("name")
        names = {"dead": "error_fingerprint", "refused": "end_reason"}
        if view not in names:
            raise InvalidRequest("dead letters and refusals have groups")
        changes: dict[str, Any] = {names[view]: name}
        return replace(self.chosen(view), **changes)

    async def get(self) -> None:
        """List the calls."""
        which, after, view = self.which(), self._place(), self.shown()
        name = self.bounded("name")

        def read(ledger: Ledger) -> tuple[list[EndGroup], list[EndedCall]]:
            groups = ledger.ended.end_groups(which)
            return groups, ledger.ended.ended_calls(which, after=after, limit=SHOWN_MAX + 1)

        groups, calls = await self.read(read)
        last = calls[SHOWN_MAX - 1].place if len(calls) > SHOWN_MAX else None
        self.show(
            "dead_letter_group.html",
            **_words_of_groups(),
            view=view,
            group=groups[0] if groups else None,
            name=name,
            calls=calls[:SHOWN_MAX],
            org_id=which.org_id,
            period=self.span("7d").name,
            address=self.address,
            discarded_max=DISCARDED_MAX,
            redrive=self._redrive(view, which),
            newest=after and self.address("/dead-letters/group", name=name),
            older=last and self._page_after(name, last),
        )

    async def post(self) -> None:
        """Discard all dead letters of the group."""
        which, expected = self.which(), _number(self.word("expected"))
        if which.state is not CallState.DEAD:
            raise InvalidRequest("a refused call has ended already: there is nothing to discard")
        if expected is None:
            raise InvalidRequest("type how many dead letters you expect to discard")

        def discard(ledger: Ledger, by: By) -> int:
            service = DiscardService(ledger.ended)
            return len(service.discard_group(which, expected_count=expected, by=by))

        await self.change(
            discard,
            then=self.address("/dead-letters/group", name=self.bounded("name")),
            done=lambda count: f"Discarded: {count} of {expected} dead letters.",
        )

    def _place(self) -> Place | None:
        at = self.word("at")
        if not at:
            return None
        generation = _number(self.word("generation")) or 1
        return Place(_moment(at), CallKey(_uuid(self.word("id")), generation))

    def _page_after(self, name: str, place: Place) -> str:
        return self.address(
            "/dead-letters/group", name=name, at=place.at.isoformat(), id=place.key.call_id,
            generation=place.key.generation,
        )  # fmt: skip

    def _redrive(self, view: str, which: CallFilter) -> str:
        """Where a redrive of the group is planned."""
        named = {"fp": which.error_fingerprint, "reason": which.end_reason}
        times = {
            name: at and at.isoformat()
            for name, at in (("since", which.since), ("until", which.until))
        }
        return self.link("/redrives/new", state=which.state, org=which.org_id, **named, **times)


def error_message(error: str) -> str:
    """What an error says, without the JSON around it and without its code."""
    return error_text(error).partition(": ")[2] or error


def _words_of_groups() -> dict[str, object]:
    return {
        "badges": BADGES,
        "meanings": MEANINGS,
        "periods": PERIODS,
        "error_message": error_message,
        "asked_at": words.now(),
    }


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no id") from None


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no time") from None
    if at.tzinfo is None:
        raise InvalidRequest(f"{text[:40]!r} has no time zone")
    return at


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{text[:20]!r} is no number")
    return int(text)
