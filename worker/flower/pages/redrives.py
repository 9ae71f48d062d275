"""`/redrives`: stored redrives, a new one, and one with its plan, its progress and what became of each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from callgate.domain.errors import InvalidRequest
from callgate.domain.redrive_forecast import Forecast
from callgate.domain.redrives import (
    CALLS_MAX,
    DEFAULT_TERMS,
    IN_PROGRESS,
    NOT_ENDED,
    OPEN_CALLS_MAX,
    Redrive,
    RedriveCall,
    RedriveOrg,
    RedriveOutcome,
    RedriveState,
)
from callgate.domain.reports import By
from callgate.services.redrives import RedriveService
from worker.flower import words
from worker.flower.money import exact_usd
from worker.flower.page import Page
from worker.flower.redrive_forms import (
    FIELDS,
    STATES,
    UNKNOWN_BILLS,
    read_expected,
    read_id,
    read_selection,
    read_terms,
    read_unknown_bills,
)
from worker.flower.source import Ledger

LISTED_MAX = 100
SHOWN_MAX = 50
ORGS_MAX = 20
PLANNED = (RedriveState.PLANNING, RedriveState.PLANNED)
CAUSES = {
    "operator": "an operator paused it",
    "failures": "too many of its calls failed again",
    "cap": "the next call could cost more than the cap leaves",
}
LABELS = {
    "org_id": "organisation",
    "call_type": "call type",
    "error_fingerprint": "fingerprint",
    "end_reason": "ended for",
}
DONE = {"pause": "Paused.", "resume": "Resumed.", "abort": "Aborted."}


def service_of(ledger: Ledger) -> RedriveService:
    """The redrives of a ledger."""
    return RedriveService(ledger.redrives, ledger.operations, words.now)


def selection_words(selection: Mapping[str, object]) -> str:
    """Which calls were chosen."""
    parts = [STATES.get(str(selection.get("state")), "Calls").lower()]
    for name, value in selection.items():
        if name == "call_ids":
            parts.append("chosen by their ids")
        elif name != "state":
            parts.append(f"{LABELS.get(name, name)} {value}")
    return ", ".join(parts)


class Redrives(Page):
    """The list."""

    path, name, title = "/redrives", "redrives", "Redrives"

    async def get(self) -> None:
        """List redrives, newest first."""
        redrives = await self.read(lambda ledger: ledger.redrives.newest(limit=LISTED_MAX))
        self.show(
            "redrives.html",
            redrives=redrives,
            causes=CAUSES,
            listed_max=LISTED_MAX,
            selection_words=selection_words,
        )


class NewRedrivePage(Page):
    """The form that chooses calls."""

    path, name, title, tab = "/redrives/new", "new_redrive", "New redrive", "redrives"

    def chosen(self, name: str) -> str:
        """One field; other pages call the reason why calls ended `reason`."""
        if name == "reason_code" and self.request.method == "GET" and not self.word(name):
            return self.word("reason")
        return self.word(name)

    async def get(self) -> None:
        """Show it, filled in from the address."""
        given = {name: self.chosen(name) for name in FIELDS}
        self.show(
            "new_redrive.html", given=given, states=STATES, calls_max=CALLS_MAX, new_id=uuid4()
        )

    async def post(self) -> None:
        """Freeze the calls, and go to the plan."""
        redrive_id = read_id(self.word("id"))
        which, calls_max = read_selection(self.word)

        def plan(ledger: Ledger, by: By) -> Redrive:
            return service_of(ledger).plan(which, by, calls_max=calls_max, redrive_id=redrive_id)

        given = {name: self.word(name) for name in FIELDS}
        await self.change(
            plan,
            then=self.link(f"/redrives/{redrive_id}", **given),
            done=lambda redrive: f"Planned: {redrive.calls:,} calls. Nothing is released yet.",
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A redrive as one page shows it."""

    redrive: Redrive
    orgs: Sequence[RedriveOrg]
    calls: Sequence[RedriveCall]
    forecast: Forecast | None


class OneRedrive(Page):
    """One redrive, live."""

    path, name, title = r"/redrives/([0-9a-f-]{36})", "one_redrive", "Redrive"
    tab = "redrives"

    async def get(self, text: str) -> None:
        """Show the plan or the progress, and the calls."""
        redrive_id, outcome = read_id(text), self._outcome()
        after = self.whole_number("after") or 0
        seen = await self.read(lambda ledger: _see(ledger, redrive_id, outcome, after))
        if seen is None:
            # It was not planned: the form says why, with what was chosen.
            given = {name: self.word(name) for name in FIELDS}
            self.redirect(self.link("/redrives/new", **given))
            return
        has_more = len(seen.calls) > SHOWN_MAX
        state = seen.redrive.state
        self.show(
            "one_redrive.html",
            seen=seen,
            r=seen.redrive,
            here=self.link(f"/redrives/{redrive_id}"),
            outcome=outcome,
            outcomes=list(RedriveOutcome),
            older=has_more and self._at(redrive_id, seen.calls[SHOWN_MAX - 1].number),
            newest=after and self._at(redrive_id, 0),
            shown_max=SHOWN_MAX,
            orgs_max=ORGS_MAX,
            causes=CAUSES,
            selection_words=selection_words,
            is_planned=state in PLANNED,
            is_in_progress=state in IN_PROGRESS,
            may_abort=state in NOT_ENDED,
            terms=seen.redrive.terms if state in IN_PROGRESS else DEFAULT_TERMS,
            exact_usd=exact_usd,
            unknown_bills=UNKNOWN_BILLS,
            open_max=OPEN_CALLS_MAX,
        )

    async def post(self, text: str) -> None:
        """Start, pause, resume or abort it."""
        redrive_id, what = read_id(text), self.word("do")
        then = self.link(f"/redrives/{redrive_id}")
        if what == "start":
            await self._start(redrive_id, then)
            return
        if what not in DONE:
            raise InvalidRequest(f"{what[:20]!r} is nothing that a redrive does")
        terms = read_terms(self.word) if what == "resume" else None

        def change(ledger: Ledger, by: By) -> Redrive:
            redrives = service_of(ledger)
            if what == "resume":
                return redrives.resume(redrive_id, by, terms)
            return (
                redrives.pause(redrive_id, by)
                if what == "pause"
                else redrives.abort(redrive_id, by)
            )

        await self.change(change, then=then, done=DONE[what])

    async def _start(self, redrive_id: UUID, then: str) -> None:
        terms, expected = read_terms(self.word), read_expected(self.word("expected"))
        unknown_bills = read_unknown_bills(self.word("unknown_bills"))

        def start(ledger: Ledger, by: By) -> Redrive:
            return service_of(ledger).start(
                redrive_id, by, expected_calls=expected, terms=terms, unknown_bills=unknown_bills
            )

        await self.change(start, then=then, done=f"Started: {expected:,} calls.")

    def _outcome(self) -> RedriveOutcome | None:
        text = self.word("outcome")
        try:
            return RedriveOutcome(text) if text else None
        except ValueError:
            raise InvalidRequest(f"{text[:20]!r} is no outcome") from None

    def _at(self, redrive_id: UUID, number: int) -> str:
        return self.link(
            f"/redrives/{redrive_id}", outcome=self.word("outcome"), after=number or None
        )


def _see(
    ledger: Ledger, redrive_id: UUID, outcome: RedriveOutcome | None, after: int
) -> _Seen | None:
    redrive = ledger.redrives.get(redrive_id)
    if redrive is None:
        return None
    service = service_of(ledger)
    return _Seen(
        redrive,
        ledger.redrives.orgs_of(redrive_id),
        ledger.redrives.calls_of(redrive_id, outcome, after=after, limit=SHOWN_MAX + 1),
        service.forecast(redrive_id) if redrive.state is RedriveState.PLANNED else None,
    )
