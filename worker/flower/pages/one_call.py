"""`/calls/<id>`: what happened to one call, why it waits, what comes next; cancel it, read its bodies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from tornado.web import HTTPError

from callgate.domain.call_history import Body
from callgate.domain.call_words import with_words
from callgate.domain.calls import CallKey, CallState, CallView
from callgate.domain.errors import CallNotFound, InvalidRequest
from callgate.domain.next_steps import next_step
from callgate.domain.reports import By, EndReason
from callgate.domain.stored_errors import error_text
from callgate.domain.unknown import is_bill_unknown
from callgate.services.call_details import CallSeen, key_of_task, look_at
from worker.flower.page import Page
from worker.flower.people import Role
from worker.flower.source import Ledger

REQUEST = "request"
ENDED = (CallState.DEAD, CallState.REJECTED)
"""Without an answer: such a call can be redriven."""


class OneCall(Page):
    """One call, by its task id; a call id leads to its newest generation."""

    path, name, title, tab = r"/calls/([^/]+)", "one_call", "One call", "calls"

    async def get(self, task_id: str) -> None:
        """Show it."""
        try:
            seen = await self._seen(task_id)
        except (CallNotFound, InvalidRequest) as error:
            self._show_missing(task_id, error)
            return
        if seen.view.key.task_id != task_id:
            self.redirect(self.link(f"/calls/{seen.view.key.task_id}"))
            return
        self._show(seen)

    async def post(self, task_id: str) -> None:
        """Cancel it, or show a body of it."""
        do = {"cancel": self._cancel, "body": self._body}.get(self.word("do"))
        if do is None:
            raise HTTPError(400, "the form does not say what to do")
        await do(key_of_task(task_id))

    def words(self, **words: str) -> str:
        """The words of a search."""
        return with_words("", words)

    async def _seen(self, task_id: str) -> CallSeen:
        now = datetime.now(UTC)
        return await self.read(lambda ledger: look_at(task_id, ledger.operations, now))

    async def _cancel(self, key: CallKey) -> None:
        def work(ledger: Ledger, by: By) -> CallView | None:
            if ledger.operations.cancel(key, by=by):
                return None
            (view,) = ledger.operations.views([key])
            return view

        here = self.link(f"/calls/{key.task_id}")
        await self.change(work, then=here, done=_cancelled)

    async def _body(self, key: CallKey) -> None:
        which = self.word("which")
        attempt_id = None if which == REQUEST else _attempt_id(which)
        done = await self.carry_out(
            lambda ledger, by: ledger.operations.show_body(key, attempt_id, by=by),
            needs=Role.BODY_READER,
        )
        if done is None:
            self.redirect(self.link(f"/calls/{key.task_id}"), status=303)
            return
        try:
            seen = await self._seen(key.task_id)
        except CallNotFound as error:
            self._show_missing(key.task_id, error)
            return
        self._show(seen, body=done[0], shown=which)

    def _show(self, seen: CallSeen, *, body: Body | None = None, shown: str = "") -> None:
        self.show(
            "one_call.html",
            seen=seen,
            view=seen.view,
            next_step=next_step(seen.view),
            unknown_bills=sum(
                is_bill_unknown(a.view.status, a.view.anomalies) and not a.settled_by_hand_at
                for a in seen.history.attempts
            ),
            may_cancel=seen.view.state in EndReason.CANCELLED.ends,
            may_redrive=seen.view.state in ENDED and seen.newest == seen.view.key,
            error_text=error_text,
            body=body,
            body_text=text_of(body) if body else "",
            shown=shown,
        )

    def _show_missing(self, task_id: str, error: CallNotFound | InvalidRequest) -> None:
        self.set_status(404 if isinstance(error, CallNotFound) else 400)
        self.show("no_call.html", task_id=task_id, is_malformed=isinstance(error, InvalidRequest))


def text_of(body: Body) -> str:
    """A body as a page shows it: JSON with indents, or as it is."""
    text = (body.data or b"").decode(errors="replace")
    if len(body.data or b"") < body.size_bytes:
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _cancelled(left: CallView | None) -> str:
    if left is None:
        return "Cancelled."
    return f"Not cancelled: it is {left.state} by now, and that is not taken back."


def _attempt_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise HTTPError(400, "the form names no attempt") from None
