"""
The base of callgate's own pages in Flower: who asks, what they may do, reading, changing, and what errors look like.

`worker/flower/README.md` tells how to add a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

import structlog
from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler

from callgate.domain.errors import CallgateError, InvalidRequest, Unavailable
from callgate.domain.reports import By
from worker.flower import words
from worker.flower.people import Person, Role
from worker.flower.source import Ledger

log = structlog.get_logger(__name__)
T = TypeVar("T")

REASON_CHARS_MAX = 1_000
WORD_CHARS_MAX = 4_000
"""Of any argument."""
FLASH = "callgate_flash"
ONCE = "once"
LIVE_EVERY_S = 5
"""Between two refreshes of an open page."""


class Page(BaseHandler):  # type: ignore[misc]
    """One page of callgate. Subclasses set `path`, `name` and `title`, and have `get`, and `post` if they change."""

    path: ClassVar[str]
    """A regular expression of the path, below the prefix: `/calls`, or `/calls/(.+)`."""
    name: ClassVar[str]
    """For `reverse_url(name)`; the navigation marks the tab of this name."""
    title: ClassVar[str]
    tab: ClassVar[str | None] = None
    """The name of the tab that is marked; None: `name`."""
    needs: ClassVar[Role] = Role.VIEWER
    """Who may read it."""

    def prepare(self) -> Any:
        """Refuse who may not read the page."""
        super().prepare()
        if self.current_user is None:
            if self.request.method != "GET":
                raise HTTPError(403)
            self.redirect(f"{self.get_login_url()}?{urlencode({'next': self.request.uri})}")
        elif why := self.why_not(self.needs):
            raise HTTPError(403, "%s", why)
        return None

    def check_xsrf_cookie(self) -> None:
        """Check Flower's rules and the token of the form; Flower itself asks for none behind a password."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    @cached_property
    def person(self) -> Person:
        """Who asks. `current_user` is True if nobody has to log in."""
        name = self.current_user
        person: Person = self.application.people.person(name if isinstance(name, str) else "")
        return person

    def why_not(self, role: Role | str) -> str | None:
        """Why the user may not do what needs a role; None if it may."""
        why: str | None = self.application.people.refusal(self.person, role)
        return why

    def word(self, name: str, default: str = "") -> str:
        """
        One argument of the query or the form, as it was written; Flower's `get_argument` escapes it.

        Raises:
            HTTPError: It is too long.
        """
        text = str(RequestHandler.get_argument(self, name, default)).strip()
        if len(text) > WORD_CHARS_MAX:
            raise HTTPError(400, "%s", f"{name} is too long")
        return text

    def whole_number(self, name: str) -> int | None:
        """One argument that is a number of a row; None if it is not given, `HTTPError` if it is no such number."""
        text = self.word(name)
        if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise HTTPError(400, "%s", f"{name} is no number of a row")
        return int(text) if text else None

    def link(self, path: str, **query: object) -> str:
        """A path of ours under the prefix, with a query; empty arguments are left out."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        prefix: str = self.application.prefix
        return prefix + path + (f"?{urlencode(given)}" if given else "")

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` with the ledger, in a thread. Errors become pages: see `write_error`."""
        found: T = await self.application.source.read(work)
        return found

    async def change(
        self,
        work: Callable[[Ledger, By], T],
        *,
        then: str,
        done: str | Callable[[T], str],
        needs: Role = Role.OPERATOR,
    ) -> None:
        """
        Change something because the user wants it, and go to a page that says so.

        The form has the partial `callgate/reason.html`, with the reason and what makes it count once. `work` gets who
        and why, and has the ledger write the row of `operator_action` in its transaction.

        Args:
            then: The path, with its query, that the browser goes to; see `link`.
            done: What the next page says, or what makes it from the result of `work`.
        """
        if found := await self.carry_out(work, needs=needs):
            self.flash(done if isinstance(done, str) else done(found[0]), "success")
        self.redirect(then, status=303)

    async def carry_out(
        self, work: Callable[[Ledger, By], T], *, needs: Role = Role.OPERATOR
    ) -> tuple[T] | None:
        """
        Do what a form with `callgate/reason.html` asks for; see `change`.

        Returns:
            The result of `work`, in a tuple; None if it was not done: the next page says why.
        """
        if why := self.why_not(needs):
            raise HTTPError(403, "%s", why)
        reason, once = self.word("reason"), self.word(ONCE)
        if not self._is_new(once):
            self.flash("This form was sent before. It was done once.", "warning")
        elif fault := reason_fault(reason):
            self.flash(fault, "danger")
        else:
            by = By(self.person.name, reason)
            try:
                return (await self.application.source.change(lambda ledger: work(ledger, by)),)
            except CallgateError as error:
                log.warning("flower_action.failed", operator=by.operator, reason=error.code)
                self.flash(_failed(error), "danger")
        return None

    def flash(self, text: str, kind: str = "success") -> None:
        """Have the next page show a message: `success`, `warning` or `danger`."""
        self.set_secure_cookie(FLASH, json.dumps([kind, text[:1_000]]), expires_days=None)

    def show(self, template: str, **values: Any) -> None:
        """Render `templates/callgate/<template>`, with `page` (this handler) and the values."""
        self.set_header("Cache-Control", "no-store")
        self.render(f"callgate/{template}", **values)

    def get_template_namespace(self) -> dict[str, Any]:
        """What every template and every partial may use."""
        zone = words.zone_of(self.get_cookie(words.ZONE_COOKIE) or "UTC")
        return {
            **super().get_template_namespace(),
            "page": self,
            "zone": zone,
            "link": self.link,
            "when": lambda at: words.when(at, zone),
            **{
                name: getattr(words, name)
                for name in ("ago", "duration", "usd", "at_most_usd", "number", "now")
            },
        }

    def new_once(self) -> str:
        """A token for a form; each form of a page has its own."""
        token: str = self.application.once.new()
        return str(self.create_signed_value(ONCE, f"{self.person.name} {token}").decode())

    def take_flash(self) -> tuple[str, str] | None:
        """The kind and text of the message to show, once."""
        kept = self.get_secure_cookie(FLASH)
        if kept is None:
            return None
        self.clear_cookie(FLASH)
        kind, text = json.loads(kept)
        return kind, text

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong: the database is away, the login lacks a right, the address is wrong."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if status_code == 401:
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):
            self.current_user = None
        if isinstance(error, Unavailable):
            self.set_status(503)
            self.set_header("Retry-After", LIVE_EVERY_S)
            self.show("away.html", why=str(error))
            return
        if isinstance(error, CallgateError):
            self.set_status(400 if isinstance(error, InvalidRequest) else 500)
            why: str | None = str(error)
        else:
            why = error.get_message() if isinstance(error, HTTPError) else ""
        self.show("error.html", status=self.get_status(), why=why or self._reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log errors that are no surprise in one line."""
        if isinstance(value, CallgateError):
            log.warning("flower_page.failed", reason=value.code, path=self.request.path)
        else:
            super().log_exception(typ, value, tb)

    def _is_new(self, once: str) -> bool:
        """
        Use the token of a form.

        Raises:
            HTTPError: It is not one of ours, for this user.
        """
        signed = self.get_secure_cookie(ONCE, once, max_age_days=1)
        name, _, token = (signed or b"").decode().rpartition(" ")
        if not token or name != self.person.name:
            raise HTTPError(403, "this form is too old, or another user's: open the page again")
        return bool(self.application.once.use(token))


def reason_fault(reason: str) -> str | None:
    """Why a text is no reason; None if it is one."""
    if not reason:
        return "Nothing was changed: say why."
    if len(reason) > REASON_CHARS_MAX:
        return f"Nothing was changed: a reason has at most {REASON_CHARS_MAX:,} characters."
    if not reason.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable():
        return "Nothing was changed: the reason has characters that cannot be printed."
    return None


def _failed(error: CallgateError) -> str:
    if isinstance(error, Unavailable):
        return (
            f"The database did not answer ({error}). It may have been done or not: look, before you"
            " try again."
        )
    return f"Nothing was changed: {error}"
