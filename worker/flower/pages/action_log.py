"""`/actions`: who changed what, when and why; and notes."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from callgate.domain.errors import InvalidRequest
from callgate.domain.overview import ActionFilter
from callgate.domain.requests import Name
from worker.flower.page import Page

PAGE_ROWS = 50
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def is_name(text: str) -> bool:
    """Whether an organisation may have this name."""
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True


def page_of(action: str, subject: str) -> str:
    """The address of the page of what an action changed; empty if it has none."""
    kind = action.partition(".")[0]
    if kind in ("call", "body"):
        return f"/calls/{subject}"
    if kind == "redrive":
        return f"/redrives/{subject.removeprefix('redrive ')}"
    return f"/unknown/one?attempt={subject}" if action == "unknown.settle" else ""


class ActionLog(Page):
    """What operators changed, newest first."""

    path, name, title = "/actions", "actions", "Action log"

    async def get(self) -> None:
        """List one page of the actions."""
        which = ActionFilter(
            self.word("operator") or None, self.word("org") or None, self.word("action") or None
        )
        before = self.whole_number("before")
        found = await self.read(
            lambda ledger: ledger.overview.actions_page(which, before=before, limit=PAGE_ROWS + 1)
        )
        shown, is_more = found[:PAGE_ROWS], len(found) > PAGE_ROWS
        terms = {"operator": which.operator, "org": which.org_id, "action": which.action}
        self.show(
            "action_log.html",
            logged=shown,
            page_of=page_of,
            terms=terms,
            newest=self.link(self.path, **terms) if before else "",
            older=self.link(self.path, **terms, before=shown[-1].number) if is_more else "",
        )

    async def post(self) -> None:
        """Write a note."""
        org_id = self.word("org") or None
        if org_id and not is_name(org_id):
            raise InvalidRequest(f"{org_id!r} cannot be the name of an organisation")
        await self.change(
            lambda ledger, by: ledger.overview.note(org_id, by=by),
            then=self.link(self.path),
            done="The note is in the log.",
        )
