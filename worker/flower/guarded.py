"""The checks and headers that every request to Flower passes, Flower's own pages and callgate's."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

import structlog
from flower.utils.authentication import authenticate
from flower.views.tasks import TasksDataTable
from tornado.options import options
from tornado.web import HTTPError, RequestHandler

from worker.flower.access import sender_of
from worker.flower.celery_tasks import is_of_callgate
from worker.flower.page import Page
from worker.flower.people import NO_LOGIN, READ_ONLY, Role

if TYPE_CHECKING:
    from worker.flower.dashboard import Dashboard

log = structlog.get_logger(__name__)

INLINE_SCRIPT = "\nvar autorefresh = 1;\n"
"""The only inline script of Flower: in the page of workers."""
_HASH = base64.b64encode(hashlib.sha256(INLINE_SCRIPT.encode()).digest()).decode()
EVERYWHERE = (
    "default-src 'none'",
    # Bootstrap's style sheet has icons as data: URLs.
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
FLOWER_POLICY = "; ".join(
    (
        *EVERYWHERE,
        f"script-src 'self' 'sha256-{_HASH}'",
        "style-src 'self'",
        # Flower's tables set widths in the markup that they generate.
        "style-src-attr 'unsafe-inline'",
        "form-action 'none'",
    )
)
PAGE_POLICY = "; ".join(
    (*EVERYWHERE, "script-src 'self'", "style-src 'self'", "form-action 'self'")
)
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
READING = ("GET", "HEAD", "OPTIONS")
COMMANDS_OFF = (
    "Flower's own commands are off: set CALLGATE_WORKER__FLOWER_COMMANDS=true to let operators command workers and"
    " send tasks"
)
FOREIGN_HOST = f"under this host name {NO_LOGIN}"
KNOWN = "callgate_known"
"""The cookie of a browser that has logged in once."""


class TooManyWrong(HTTPError):
    """The sender of wrong passwords must wait."""

    def __init__(self, wait_s: float) -> None:
        self.retry_after_s = math.ceil(wait_s)
        super().__init__(429, f"too many wrong passwords: try again in {self.retry_after_s} s")


class Guarded(RequestHandler):
    """What is added to every handler."""

    application: Dashboard
    unauthenticated_api = False
    """Always off: Flower's variable with this name opens its API to every web page that a developer visits."""

    def set_default_headers(self) -> None:
        """Set the security headers."""
        super().set_default_headers()
        policy = PAGE_POLICY if isinstance(self, Page) else FLOWER_POLICY
        self.set_header("Content-Security-Policy", policy)
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> Any:
        """Refuse what changes something in read-only mode, and requests under a foreign host name (DNS rebinding)."""
        if not (self.application.has_login or is_loopback(self.request.host_name)):
            raise HTTPError(403, FOREIGN_HOST)
        is_reading = self.request.method in READING or isinstance(self, TasksDataTable)
        if not is_reading and (why := self._refusal()):
            raise HTTPError(403, "%s", why)
        return super().prepare()

    def get_current_user(self) -> Any:
        """Return the user: its name, or True if nobody has to log in. None: it must."""
        name = self._user_of_password() if self.application.password_guard else None
        return self._user_of_session() if options.auth else name or True

    def render(self, template_name: str, **kwargs: Any) -> Any:
        """Have Flower's pages offer their commands only to those who may use them."""
        if "read_only" in kwargs:
            kwargs["read_only"] = is_of_callgate(kwargs) or self._refusal() is not None
        return super().render(template_name, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Set the header that tells when to try again."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, TooManyWrong):
            self.set_header("Retry-After", error.retry_after_s)
        super().write_error(status_code, **kwargs)

    def _refusal(self) -> str | None:
        """Why this user may change nothing here. Pages check further what their changes need."""
        user = self.current_user
        people = self.application.people
        if isinstance(self, Page):
            return NO_LOGIN if user is True else READ_ONLY if people.is_read_only else None
        if people.is_read_only:
            return READ_ONLY
        if not self.application.has_commands:
            return COMMANDS_OFF
        return people.refusal(people.person(user if isinstance(user, str) else ""), Role.OPERATOR)

    def _user_of_session(self) -> str | None:
        """The email of an OAuth session, if it may still log in."""
        cookie = self.get_secure_cookie("user")
        user = cookie.decode() if cookie else ""
        return user if user and authenticate(options.auth, user) else None

    def _user_of_password(self) -> str:
        """
        Check the password.

        Raises:
            HTTPError: There is none, or it is wrong, or there were too many wrong ones.
        """
        guard = self.application.password_guard
        assert guard is not None
        header = self.request.headers.get("Authorization")
        if not header:
            raise HTTPError(401)
        cookie = self.get_secure_cookie(KNOWN)
        sender = cookie.decode() if cookie else sender_of(self.request.remote_ip or "")
        who: dict[str, Any] = {"sender": sender, "now": time.monotonic(), "is_known": bool(cookie)}
        if wait_s := guard.wait_s(**who):
            raise TooManyWrong(wait_s)
        user = guard.user_of(header)
        if user is None:
            guard.note_wrong(**who)
            if guard.wait_s(**who):
                log.warning("flower_logins.refused", address=self.request.remote_ip)
            raise HTTPError(401)
        if not cookie:
            self.set_secure_cookie(KNOWN, secrets.token_urlsafe(9), httponly=True, samesite="Lax")
        return user


def is_loopback(address: str) -> bool:
    """Whether an address or a host name is this machine's own."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
