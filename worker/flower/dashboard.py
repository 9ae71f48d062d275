"""
Flower as `callgate flower` runs it: on callgate's app, with callgate's pages, behind a login, read-only by default.

It reads no FLOWER_* variable and no flowerconfig.py; callgate's settings replace them. `Guarded` wraps every handler of
Flower, also those that a later version adds, so every request passes its checks.
"""

from __future__ import annotations

import functools
import hashlib
import signal
import sys
import time
from typing import Any

from celery import Celery
from celery.utils.imports import symbol_by_name
from flower.app import Flower
from flower.urls import settings as flower_settings
from flower.utils.authentication import validate_auth_option
from flower.views.auth import LoginHandler
from flower.views.error import NotFoundErrorHandler
from kombu.utils.url import maybe_sanitize_url
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.options import options
from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler, url

from callgate.adapters.catalogue_file import load_catalogue
from callgate.domain.errors import ConfigurationError
from config.settings import WorkerOptions, WorkerSettings
from worker.app import register_tasks, worker_app
from worker.flower.access import PasswordGuard
from worker.flower.celery_tasks import CallTask, CallTasks
from worker.flower.guarded import Guarded, is_loopback
from worker.flower.health import FlowerHealth
from worker.flower.once import OnceTokens
from worker.flower.pages import PAGES, TABS
from worker.flower.pages.unknown_csv import Settlements
from worker.flower.people import People, Role, read_passwords, read_roles
from worker.flower.source import Source
from worker.flower.state import TASKS_MAX, WORKERS_MAX, BoundedEvents, BoundedInspector
from worker.flower.status import FlowerStatus
from worker.flower.templates import STATIC, Templates

BODY_MAX_BYTES = 2**20
BODY_MAX_S = 20.0
IDLE_MAX_S = 120.0
PROVIDERS = {
    "google": "flower.views.auth.GoogleAuth2LoginHandler",
    "github": "flower.views.auth.GithubLoginHandler",
    "gitlab": "flower.views.auth.GitLabLoginHandler",
    "okta": "flower.views.auth.OktaLoginHandler",
}
"""Flower's login handlers, by the short names of `flower_auth_provider`."""


class Dashboard(Flower):  # type: ignore[misc]
    """Flower's application."""

    def __init__(self, app: Celery, settings: WorkerSettings) -> None:
        worker = settings.worker
        passwords = set_options(worker)
        self.password_guard = PasswordGuard(passwords, time.monotonic()) if passwords else None
        self.has_login = bool(passwords or worker.flower_auth)
        self.has_commands = worker.flower_commands
        self.people = people_of(worker)
        self.once = OnceTokens()
        self._versions: dict[str, str] = {}
        self.alert_rules = load_catalogue(settings.catalogue).alerts
        self.metrics_orgs_max = worker.metrics_orgs_max
        self.source = Source(settings)
        self.providers = load_catalogue(settings.catalogue).providers
        self.settlements = Settlements()
        self.prefix = f"/{worker.flower_url_prefix}" if worker.flower_url_prefix else ""
        names = {page.name for page in PAGES}
        self.tabs = [tab for tab in TABS if tab[0] in names]
        loop = IOLoop.current()
        super().__init__(
            capp=app,
            options=options,
            io_loop=loop,
            events=BoundedEvents(app, loop),
            **tornado_settings(worker, self.prefix),
        )
        self.inspector = BoundedInspector(loop, app, options.inspect_timeout / 1_000)
        self._add_pages()

    def _add_pages(self) -> None:
        """Add callgate's pages before Flower's; the root shows the overview."""
        static = (f"{self.prefix}/static/callgate/(.*)", StaticFileHandler, {"path": str(STATIC)})
        start = (
            f"{self.prefix}/",
            RedirectHandler,
            {"url": f"{self.prefix}/overview", "permanent": False},
        )
        pages = [url(self.prefix + page.path, page, name=page.name) for page in PAGES]
        pages += [
            url(f"{self.prefix}/tasks/datatable", CallTasks),
            url(f"{self.prefix}/task/(.+)", CallTask),
        ]
        self.add_handlers(".*", [start, static, *pages])

    def asset(self, path: str) -> str:
        """The path of one of callgate's own static files; it changes when the file changes."""
        if path not in self._versions:
            content = (STATIC / path).read_bytes()
            self._versions[path] = hashlib.sha256(content).hexdigest()[:12]
        version = self._versions[path]
        return f"{self.prefix}/static/callgate/{path}?v={version}"

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
            provider = options.auth_provider
            target_class = symbol_by_name(provider) if provider else NotFoundErrorHandler
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


def set_options(worker: WorkerOptions) -> list[str]:
    """Set Flower's options, which are global to the process; return the passwords."""
    options.address = worker.flower_address
    options.port = worker.flower_port
    options.read_only = worker.flower_read_only
    options.max_tasks = TASKS_MAX
    options.max_workers = WORKERS_MAX
    options.url_prefix = worker.flower_url_prefix or None
    options.auth = worker.flower_auth
    provider = worker.flower_auth_provider
    options.auth_provider = PROVIDERS.get(provider, provider) or None
    secret = worker.flower_basic_auth
    passwords = read_passwords(secret.get_secret_value()) if secret else []
    # Flower only checks whether one is set; `Guarded` compares the password.
    options.basic_auth = ["compared by the guard"] if passwords else []
    return passwords


def tornado_settings(worker: WorkerOptions, prefix: str) -> dict[str, Any]:
    """Flower's settings of its web server, with ours. Flower's own command does some of this, and we do not run it."""
    found = dict(flower_settings)
    # Tornado compiles templates once, and escapes what they show.
    found["template_loader"] = Templates()
    found["xsrf_cookie_kwargs"] = {"samesite": "Lax"}
    for name in ("login_url", "static_url_prefix"):
        found[name] = prefix + found[name]
    if worker.flower_cookie_secret:
        found["cookie_secret"] = worker.flower_cookie_secret.get_secret_value()
    secret = worker.flower_oauth2_secret
    found["oauth"] = {
        "key": worker.flower_oauth2_key,
        "secret": secret.get_secret_value() if secret else "",
        "redirect_uri": worker.flower_oauth2_redirect_uri,
    }
    return found


def people_of(worker: WorkerOptions) -> People:
    """The roles of users. `ConfigurationError` if they cannot be read."""
    default = worker.flower_default_role
    return People(
        read_roles(worker.flower_roles),
        frozenset({Role(default)} if default else ()),
        worker.flower_read_only,
    )


def run_dashboard(settings: WorkerSettings) -> None:
    """
    Run Flower until a signal ends it.

    Raises:
        ConfigurationError: Its settings would show it, or its commands, to others; or it cannot listen.
    """
    check_guarded(settings.worker)
    app = worker_app(settings)
    register_tasks(app)
    dashboard = Dashboard(app, settings)
    health = FlowerHealth(app)
    health.add_to(dashboard, settings.worker.flower_url_prefix)
    dashboard.start_http_server()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    health.start()
    status = FlowerStatus(settings, health.routes())
    status.start()
    try:
        dashboard.start()
    finally:
        status.stop()
        health.stop()
        dashboard.stop()
        dashboard.source.close()


def check_guarded(worker: WorkerOptions) -> None:
    """
    Refuse to show Flower to others, or to let it change something, without a login.

    Raises:
        ConfigurationError: Names the setting.
    """
    has_login = bool(worker.flower_basic_auth or worker.flower_auth)
    logins = "CALLGATE_WORKER__FLOWER_BASIC_AUTH to user:password, or CALLGATE_WORKER__FLOWER_AUTH"
    if not has_login and not is_loopback(worker.flower_address):
        raise ConfigurationError(
            f"CALLGATE_WORKER__FLOWER_ADDRESS {worker.flower_address!r} can be reached by others: set {logins}"
        )
    if not has_login and not worker.flower_read_only:
        raise ConfigurationError(
            f"CALLGATE_WORKER__FLOWER_READ_ONLY=false needs to know who changes something: set {logins}"
        )
    if worker.flower_auth:
        _check_oauth(worker)
    people_of(worker)
    if secret := worker.flower_basic_auth:
        read_passwords(secret.get_secret_value())


def _check_oauth(worker: WorkerOptions) -> None:
    if not validate_auth_option(worker.flower_auth):
        raise ConfigurationError(
            "CALLGATE_WORKER__FLOWER_AUTH must be emails with | between them, or one pattern like .*@acme.example"
        )
    if not worker.flower_auth_provider:
        raise ConfigurationError(
            f"CALLGATE_WORKER__FLOWER_AUTH needs CALLGATE_WORKER__FLOWER_AUTH_PROVIDER: {', '.join(PROVIDERS)}, or"
            " the path of a handler"
        )


@functools.cache
def _guarded(handler: type[RequestHandler]) -> type[RequestHandler]:
    return type(handler.__name__, (Guarded, handler), {})
