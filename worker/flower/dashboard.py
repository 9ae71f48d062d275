"""
Flower as `callgate flower` runs it: on callgate's app, behind a password, and read-only by default.

It reads no FLOWER_* variable and no flowerconfig.py; callgate's settings replace them. `Guarded` wraps every handler of
Flower, also those that a later version adds, so every request passes its checks.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import math
import secrets
import signal
import sys
import time
from typing import Any

import structlog
from celery import Celery
from flower.app import Flower
from flower.urls import settings as flower_settings
from flower.views.auth import LoginHandler
from flower.views.error import NotFoundErrorHandler
from flower.views.tasks import TasksDataTable
from kombu.utils.url import maybe_sanitize_url
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.options import options
from tornado.web import HTTPError, RequestHandler

from callgate.domain.errors import ConfigurationError
from config.settings import WorkerOptions, WorkerSettings
from worker.app import register_tasks, worker_app
from worker.flower.access import PasswordGuard, sender_of
from worker.flower.state import TASKS_MAX, WORKERS_MAX, BoundedEvents, BoundedInspector

log = structlog.get_logger(__name__)

INLINE_SCRIPT = "\nvar autorefresh = 1;\n"
"""The only inline script of Flower: in the page of workers."""
_HASH = base64.b64encode(hashlib.sha256(INLINE_SCRIPT.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'sha256-{_HASH}'",
            "style-src 'self'",
            # Flower's tables set widths in the markup that they generate.
            "style-src-attr 'unsafe-inline'",
            # Bootstrap's style sheet has icons as data: URLs.
            "img-src 'self' data:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
READING = ("GET", "HEAD", "OPTIONS")
READ_ONLY = "read-only: set CALLGATE_WORKER__FLOWER_READ_ONLY=false to let Flower command workers and send tasks"
FOREIGN_HOST = (
    "without CALLGATE_WORKER__FLOWER_BASIC_AUTH Flower answers under a loopback name only"
)
KNOWN = "callgate_known"
"""The cookie of a browser that has logged in once."""
BODY_MAX_BYTES = 2**20
BODY_MAX_S = 20.0
IDLE_MAX_S = 120.0


class TooManyWrong(HTTPError):
    """The sender of wrong passwords must wait."""

    def __init__(self, wait_s: float) -> None:
        self.retry_after_s = math.ceil(wait_s)
        super().__init__(429, f"too many wrong passwords: try again in {self.retry_after_s} s")


class Guarded(RequestHandler):
    """The checks and headers that are added to every handler of Flower."""

    application: Dashboard
    unauthenticated_api = False
    """Always off: Flower's variable with this name opens its API to every web page that a developer visits."""

    def set_default_headers(self) -> None:
        """Set the security headers."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> Any:
        """Refuse commands in read-only mode, and requests under a foreign host name (DNS rebinding)."""
        if not (self.application.password_guard or _is_loopback(self.request.host_name)):
            raise HTTPError(403, FOREIGN_HOST)
        is_reading = self.request.method in READING or isinstance(self, TasksDataTable)
        if options.read_only and not is_reading:
            self.get_current_user()
            raise HTTPError(403, READ_ONLY)
        return super().prepare()

    def get_current_user(self) -> Any:
        """Check the password, if one is set."""
        guard = self.application.password_guard
        if guard is None:
            return True
        header = self.request.headers.get("Authorization")
        if not header:
            raise HTTPError(401)
        cookie = self.get_secure_cookie(KNOWN)
        sender = cookie.decode() if cookie else sender_of(self.request.remote_ip or "")
        who: dict[str, Any] = {"sender": sender, "now": time.monotonic(), "is_known": bool(cookie)}
        if wait_s := guard.wait_s(**who):
            raise TooManyWrong(wait_s)
        if not guard.is_right(header):
            guard.note_wrong(**who)
            if guard.wait_s(**who):
                log.warning("flower_logins.refused", address=self.request.remote_ip)
            raise HTTPError(401)
        if not cookie:
            self.set_secure_cookie(KNOWN, secrets.token_urlsafe(9), httponly=True, samesite="Lax")
        return True

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Set the header that tells when to try again."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, TooManyWrong):
            self.set_header("Retry-After", error.retry_after_s)
        super().write_error(status_code, **kwargs)


class Dashboard(Flower):  # type: ignore[misc]
    """Flower's application."""

    def __init__(self, app: Celery, worker: WorkerOptions) -> None:
        set_options(worker)
        secret = worker.flower_basic_auth
        self.password_guard = (
            PasswordGuard(secret.get_secret_value(), time.monotonic()) if secret else None
        )
        under: dict[str, Any] = {}
        if prefix := worker.flower_url_prefix:
            # Flower's own command does this, and we do not run it.
            paths = ("login_url", "static_url_prefix")
            under = {name: f"/{prefix}{flower_settings[name]}" for name in paths}
        loop = IOLoop.current()
        super().__init__(
            capp=app,
            options=options,
            io_loop=loop,
            events=BoundedEvents(app, loop),
            **{**flower_settings, **under},
        )
        self.inspector = BoundedInspector(loop, app, options.inspect_timeout / 1_000)

    @property
    def broker_uri_with_password(self) -> str:
        """The broker's URL from the settings; kombu's own URL names a transport that Flower does not know."""
        return str(self.capp.conf.broker_url)

    @property
    def broker_uri(self) -> str:
        """The same URL without its password."""
        return str(maybe_sanitize_url(self.broker_uri_with_password))

    def get_handler_delegate(
        self, request: Any, target_class: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Wrap the handler that Tornado chose."""
        if target_class is LoginHandler:
            # This handler replaces its own class when it is created, and would lose the wrapper; use the final class.
            target_class = NotFoundErrorHandler
        return super().get_handler_delegate(request, _guarded(target_class), *args, **kwargs)

    def start_http_server(self) -> int:
        """
        Listen, with bounds on what a request may hold and how long it may take.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        try:
            sockets = bind_sockets(options.port, address=options.address)
        except OSError as exc:
            raise ConfigurationError(
                f"Flower cannot listen on {options.address}:{options.port} ({exc.strerror}):"
                " set CALLGATE_WORKER__FLOWER_PORT"
            ) from exc
        server = HTTPServer(
            self,
            max_buffer_size=2 * BODY_MAX_BYTES,
            max_body_size=BODY_MAX_BYTES,
            body_timeout=BODY_MAX_S,
            idle_connection_timeout=IDLE_MAX_S,
        )
        server.add_sockets(sockets)
        return int(options.port)


def set_options(worker: WorkerOptions) -> None:
    """Set Flower's options, which are global to the process."""
    options.address = worker.flower_address
    options.port = worker.flower_port
    options.read_only = worker.flower_read_only
    options.max_tasks = TASKS_MAX
    options.max_workers = WORKERS_MAX
    options.url_prefix = worker.flower_url_prefix or None
    # Flower only checks whether one is set; `Guarded` compares the password.
    options.basic_auth = ["compared by the guard"] if worker.flower_basic_auth else []


def run_dashboard(settings: WorkerSettings) -> None:
    """
    Run Flower until a signal ends it.

    Raises:
        ConfigurationError: Its settings would show it, or its commands, to others; or it cannot listen.
    """
    check_guarded(settings.worker)
    app = worker_app(settings)
    register_tasks(app)
    dashboard = Dashboard(app, settings.worker)
    dashboard.start_http_server()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        dashboard.start()
    finally:
        dashboard.stop()


def check_guarded(worker: WorkerOptions) -> None:
    """
    Refuse to show Flower to others, or to let it command, without a password.

    Raises:
        ConfigurationError: Names the setting.
    """
    secret = worker.flower_basic_auth
    if secret is None and not _is_loopback(worker.flower_address):
        raise ConfigurationError(
            f"CALLGATE_WORKER__FLOWER_ADDRESS {worker.flower_address!r} can be reached by others:"
            " set CALLGATE_WORKER__FLOWER_BASIC_AUTH to user:password"
        )
    if secret is None and not worker.flower_read_only:
        raise ConfigurationError(
            "CALLGATE_WORKER__FLOWER_READ_ONLY=false lets Flower run any task of this broker:"
            " set CALLGATE_WORKER__FLOWER_BASIC_AUTH to user:password"
        )
    if secret is not None and ":" not in secret.get_secret_value():
        raise ConfigurationError("CALLGATE_WORKER__FLOWER_BASIC_AUTH must be user:password")


@functools.cache
def _guarded(handler: type[RequestHandler]) -> type[RequestHandler]:
    return type(handler.__name__, (Guarded, handler), {})


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
