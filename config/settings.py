"""
The worker's settings: the client's, and those that only processes that run calls need (`CALLGATE_WORKER__*`).

Only this module reads the worker's environment. Everything else is given values.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from callgate.domain.budgets import hold_nano_usd
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.domain.urls import url_fault
from callgate.domain.webhook_signature import secret_bytes
from callgate.settings import WORKER_PREFIX, ClientSettings, Seconds, load_settings

CATALOGUE = Path(__file__).with_name("catalogue.toml")
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
"""OpenAI's own variable, read so that one key need not be given twice."""
CREDENTIALS_PREFIX = WORKER_PREFIX + "CREDENTIALS__"
INTO_A_FILE = f"put the key into a file of {WORKER_PREFIX}CREDENTIALS_DIR"


class WorkerOptions(BaseModel):
    """Settings of one worker process."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """Calls in flight in one process. Each keeps its broker message until its answer is recorded."""
    task_threads_max: Annotated[int, Field(ge=2, le=64)] = 4
    """Threads for blocking work: settling and sweeping."""
    quarantine_processes_max: Annotated[int, Field(ge=1, le=64)] = 8
    """Quarantined calls that one process runs at once, each in a child process of 25 MB (95 MB for OpenAI)."""
    ledger_connections_max: Annotated[int, Field(ge=4, le=64)] = 8
    """Connections of one process to Postgres. Too low: statements wait for each other."""
    attempt_grace_s: Seconds = 15.0
    """From an attempt's deadline to its expiry. Too low: late records become unknown. Too high: slow recovery."""
    process_lease_s: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 10.0
    """
    Seconds after a renewal for which the ledger considers this process alive. Then its calls are recovered.

    Too low: a pause of half of it (a busy machine, a slow commit) stops sending, and a longer one costs the calls in
    flight. Too high: slow recovery.
    """
    shutdown_timeout_s: Seconds = 120.0
    """How long a stopping worker waits for calls in flight; longer than the longest deadline."""
    due_interval_s: Seconds = 0.5
    """Between two due queries of one worker."""
    sweep_interval_s: Seconds = 5.0
    """Between two sweeps of one worker."""
    sweep_min_age_s: Seconds = 2.0
    """How long before a sweep a call must have been queued for its message to count as lost."""
    maintenance_interval_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 3_600.0
    """Between two runs of retention in one worker. Partitions are made two months ahead, so a day is short enough."""
    default_daily_usd: Annotated[Decimal, Field(ge=0, le=1_000_000_000)] | None = None
    """Daily limit of an organisation without a budget; None: its calls are refused."""
    credentials: dict[str, SecretStr] = {}
    """
    API keys by provider, or by `provider.org`, in lower case: CALLGATE_WORKER__CREDENTIALS__OPENAI.

    `provider.org.url` is the organisation's own endpoint, if the catalogue's `org_endpoints` allow it.
    """
    credentials_dir: Path | None = None
    """A folder with one key per file, named by provider or `provider.org`; a changed file is read again."""
    connections_max: Annotated[int, Field(ge=1, le=20_000)] = 2_000
    """Connections to one provider."""
    request_memory_max_bytes: Annotated[int, Field(ge=2**20)] = 128 * 2**20
    """
    Memory for requests above 64 KiB in one process; further ones wait in the ledger.

    A request takes three times its size, or six times if one of its texts has a character above U+FFFF. One
    organisation gets at most half.
    """
    data_dir: Path = Path(".callgate")
    """Where the embedded servers and `callgate up` keep their files."""
    flower_address: str = "127.0.0.1"
    """Where Flower listens. Beyond loopback it needs logins."""
    flower_port: Annotated[int, Field(ge=1, le=65_535)] = 5555
    """The port of Flower."""
    flower_url_prefix: Annotated[str, Field(pattern=r"^/?([\w.~-]+(/[\w.~-]+)*)?/?$")] = ""
    """The path under which a proxy shows Flower, for example `ops/flower`; the proxy must not strip it."""
    flower_basic_auth: SecretStr | None = None
    """
    `user:password` for Flower, or a JSON list of several: `["ann:...", "bob:..."]`.

    Without this or `flower_auth` Flower starts on a loopback address only, and changes nothing.
    """
    flower_auth: str = ""
    """Who may log in with OAuth, as Flower's `--auth`: emails with `|` between them, or one like `.*@acme.example`."""
    flower_auth_provider: str = ""
    """`google`, `github`, `gitlab`, `okta`, or the dotted path of a login handler."""
    flower_oauth2_key: str = ""
    """The client id that the OAuth provider gave."""
    flower_oauth2_secret: SecretStr | None = None
    """The client secret that the OAuth provider gave."""
    flower_oauth2_redirect_uri: str = ""
    """Where the provider sends the browser back: Flower's `/login`, with its host and path."""
    flower_cookie_secret: SecretStr | None = None
    """Signs what browsers keep. None: a new one with each start, and OAuth users log in again."""
    flower_roles: str = ""
    """
    Roles by Flower's user: `ann=operator+body_reader, bob=viewer`.

    A viewer reads; an operator changes calls, budgets and limits; a body reader may see requests and replies.
    """
    flower_default_role: Annotated[str, Field(pattern="^(viewer|operator|body_reader|)$")] = (
        "viewer"
    )
    """The role of users without one. Empty: they see none of callgate's pages."""
    flower_read_only: bool = True
    """False lets operators change what their pages offer."""
    flower_commands: bool = False
    """
    Let operators also command workers in Flower's own pages, and send any task to any pipeline on this broker.

    Callgate's own workers ignore such commands in any case.
    """
    flower_database_url: SecretStr | None = None
    """The login that pages read with, a member of `callgate_dashboard`. None: CALLGATE_DATABASE_URL."""
    flower_operator_url: SecretStr | None = None
    """The login that operators change with, a member of `callgate_operator` too. None: the one that pages read with."""
    status_address: str = "127.0.0.1"
    """
    Where workers and Flower answer `/live`, `/ready` and `/metrics` without a password. Who can reach it can read them.

    An address beyond loopback belongs into a network that only probes and Prometheus reach.
    """
    status_port: Annotated[int, Field(ge=0, le=65_535)] = 9540
    """0: nowhere. Two workers on one machine need two ports: the second logs that it has none, and works."""
    flower_status_port: Annotated[int, Field(ge=0, le=65_535)] = 9541
    """Where Flower answers `/live`, `/ready` and `/metrics` without a password, at `status_address`. 0: nowhere."""
    metrics_interval_s: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 15.0
    """How old the figures of the ledger may be that `/metrics` shows, until one process reads them again for all."""
    metrics_orgs_max: Annotated[int, Field(ge=0, le=150)] = 20
    """Organisations that `/metrics` names: those that used most. The others are summed."""
    alert_interval_s: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 15.0
    """Between two looks for what is to be alerted, of all workers together."""
    alert_webhook_url: SecretStr | None = None
    """Where alerts are posted. It may hold a secret, so it is never shown. Without it alerts are in ledger and log."""
    alert_webhook_secret: SecretStr | None = None
    """What signs them: `whsec_` and 24 to 64 random bytes in base64; see docs/alerts.md."""
    alert_webhook_old_secret: SecretStr | None = None
    """While the secret changes: the one before. Messages have a signature of each."""
    alert_timeout_s: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 10.0
    """For one message to the webhook, from connecting to the status of the answer."""
    tracing_content: bool = False
    """Spans of provider requests hold the messages and the answer. Who sees the traces can read them."""
    log_json: bool = False
    """Log one JSON object per line instead of text for people."""
    log_successes: bool = True
    """One line for each call that succeeds; the ledger has them in any case."""

    @field_validator("flower_url_prefix")
    @classmethod
    def _without_slashes(cls, path: str) -> str:
        return path.strip("/")

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        text = url.get_secret_value() if url else "https://example.com"
        if not text.startswith(("http://", "https://")) or url_fault(text):
            raise ValueError("must be a URL of http or https")
        return url

    @field_validator("alert_webhook_secret", "alert_webhook_old_secret")
    @classmethod
    def _is_key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            secret_bytes(secret.get_secret_value())
        return secret

    @property
    def alert_webhook_keys(self) -> tuple[bytes, ...]:
        """The keys of the new and the old secret, as far as they are set."""
        secrets = (self.alert_webhook_secret, self.alert_webhook_old_secret)
        return tuple(secret_bytes(s.get_secret_value()) for s in secrets if s is not None)

    @property
    def default_limit_nano_usd(self) -> int | None:
        """`default_daily_usd` as the ledger counts it."""
        return None if self.default_daily_usd is None else hold_nano_usd(self.default_daily_usd)


class WorkerSettings(ClientSettings):
    """All settings of a worker process."""

    catalogue: Path | None = CATALOGUE
    worker: WorkerOptions = WorkerOptions()

    def with_flower(self, *, is_read_only: bool, url_prefix: str | None) -> WorkerSettings:
        """
        Apply what the command line says of Flower. It can make Flower read-only, never the other way round.

        Raises:
            ConfigurationError: The path cannot be used.
        """
        said: dict[str, Any] = {"flower_read_only": True} if is_read_only else {}
        if url_prefix is not None:
            said["flower_url_prefix"] = url_prefix
        try:
            worker = WorkerOptions.model_validate({**self.worker.model_dump(), **said})
        except ValidationError:
            raise ConfigurationError(f"--url-prefix {url_prefix!r} is not a path") from None
        return self.model_copy(update={"worker": worker})

    def api_keys(self, providers: Collection[str]) -> dict[str, SecretStr]:
        """
        API keys by `provider` or `provider.org`, OpenAI's own variable included.

        Variables are usually upper case, so the case of a provider does not matter. An organisation must be exact.

        Raises:
            ConfigurationError: A variable names no provider, or more than one, or is set twice.
        """
        written = _written(os.environ)
        keys = {
            _full_name(written.get(name, name), providers): key
            for name, key in self.worker.credentials.items()
        }
        if key := os.environ.get(OPENAI_KEY_VARIABLE):
            keys.setdefault("openai", SecretStr(key))
        return keys


def _written(environ: Iterable[str]) -> dict[str, str]:
    """Names of keys as written in the environment, by their lower case, in which pydantic reads them."""
    written: dict[str, str] = {}
    for variable in environ:
        if variable.upper().startswith(CREDENTIALS_PREFIX):
            name = variable[len(CREDENTIALS_PREFIX) :]
            if (other := written.setdefault(name.lower(), name)) != name:
                raise ConfigurationError(
                    f"{CREDENTIALS_PREFIX}{other} and ...{name} differ by case only: {INTO_A_FILE}"
                )
    return written


def _full_name(name: str, providers: Collection[str]) -> str:
    """Write the provider of `OPENAI.Acme` as the catalogue does: `openai.Acme`."""
    folded = name.lower() + "."
    matching = [p for p in providers if folded.startswith(p.lower() + ".")]
    if len(matching) == 1:
        return matching[0] + name[len(matching[0]) :]
    what = f"may be any of the providers {', '.join(matching)}" if matching else "is no provider"
    raise ConfigurationError(
        f"{CREDENTIALS_PREFIX}{name} {what} in the catalogue, which has"
        f" {', '.join(sorted(providers)) or 'none'}; if no variable can name it, {INTO_A_FILE}"
    )


def load_worker_settings() -> WorkerSettings:
    """
    Build the worker's settings from the environment.

    Raises:
        ConfigurationError: A variable is missing, unknown or out of bounds.
    """
    return load_settings(WorkerSettings)


def check_relations(settings: WorkerSettings, catalogue: Catalogue) -> None:
    """
    Check what must hold between settings. Each message says what would break.

    Raises:
        ConfigurationError: They cannot work together.
    """
    worker = settings.worker
    deadline_s = max(p.deadline_s for p in (catalogue.default, *catalogue.call_types.values()))
    wrong = list(
        filter(
            None,
            (
                _drain_too_short(worker, deadline_s),
                _lease_too_long(worker, deadline_s),
                _no_time_to_record(settings),
                _nothing_to_sign_with(worker),
            ),
        )
    )
    if wrong:
        raise ConfigurationError("; ".join(wrong))


def _drain_too_short(worker: WorkerOptions, deadline_s: float) -> str | None:
    if worker.shutdown_timeout_s > deadline_s:
        return None
    return (
        f"CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S ({worker.shutdown_timeout_s}) must exceed the longest deadline"
        f" ({deadline_s}), or stopping a worker makes outcomes unknown"
    )


def _lease_too_long(worker: WorkerOptions, deadline_s: float) -> str | None:
    if worker.process_lease_s < deadline_s + worker.attempt_grace_s:
        return None
    return (
        f"CALLGATE_WORKER__PROCESS_LEASE_S ({worker.process_lease_s}) must be below the longest deadline plus grace"
        f" ({deadline_s + worker.attempt_grace_s}), or a killed worker is noticed no sooner than without leases"
    )


def _nothing_to_sign_with(worker: WorkerOptions) -> str | None:
    if worker.alert_webhook_url is None or worker.alert_webhook_secret is not None:
        return None
    return (
        "CALLGATE_WORKER__ALERT_WEBHOOK_URL needs CALLGATE_WORKER__ALERT_WEBHOOK_SECRET, or its receiver cannot know"
        " who has sent a message"
    )


def _no_time_to_record(settings: WorkerSettings) -> str | None:
    # Retries of a record back off by at most a third of the grace. An outage shorter than half a lease is not noticed.
    worker = settings.worker
    waits_s = max(worker.attempt_grace_s / 3, worker.process_lease_s / 2)
    if settings.ledger_timeout_s + waits_s < worker.attempt_grace_s:
        return None
    return (
        f"CALLGATE_WORKER__ATTEMPT_GRACE_S ({worker.attempt_grace_s}) must exceed CALLGATE_LEDGER_TIMEOUT_S"
        f" ({settings.ledger_timeout_s}) plus a third of itself, and plus half of CALLGATE_WORKER__PROCESS_LEASE_S"
        f" ({worker.process_lease_s}), or an outage of Postgres leaves no time to record and costs attempts"
    )
