"""
The worker's settings: the client's, and what only processes that run calls need (`CALLGATE_WORKER__*`).

This is the only place that reads the worker's environment. Everything else is given values.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from callgate.domain.budgets import hold_nano_usd
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.settings import WORKER_PREFIX, ClientSettings, Seconds, load_settings

CATALOGUE = Path(__file__).with_name("catalogue.toml")
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
"""OpenAI's own variable, honoured so that one key need not be given twice."""
CREDENTIALS_PREFIX = WORKER_PREFIX + "CREDENTIALS__"
INTO_A_FILE = f"put the key into a file of {WORKER_PREFIX}CREDENTIALS_DIR"


class WorkerOptions(BaseModel):
    """How one worker process runs calls."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """Calls one process has in flight; each keeps its broker message until it is recorded."""
    task_threads_max: Annotated[int, Field(ge=2, le=64)] = 4
    """Threads for what blocks: settling, sweeping."""
    quarantine_processes_max: Annotated[int, Field(ge=1, le=64)] = 8
    """Calls lost before that one process runs at once, each in a child process of 25 MB (95 for OpenAI)."""
    ledger_connections_max: Annotated[int, Field(ge=4, le=64)] = 8
    attempt_grace_s: Seconds = 15.0
    """From an attempt's deadline to its expiry. Too low: slow records become unknown; too high: slow recovery."""
    process_lease_s: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 10.0
    """
    How long the ledger takes this process for alive after a renewal; then the calls of a killed one are moved on.
    Too low: a pause of half of it (a busy machine, a slow commit) stops sending, a longer one costs the calls in
    flight; too high: slow recovery.
    """
    shutdown_timeout_s: Seconds = 120.0
    """How long a stopping worker lets calls in flight finish; more than the longest deadline."""
    due_interval_s: Seconds = 0.5
    """Between two due queries of one worker."""
    sweep_interval_s: Seconds = 5.0
    """Between two sweeps of one worker."""
    sweep_min_age_s: Seconds = 2.0
    """How much older than a sweep a queued call must be to count as lost."""
    maintenance_interval_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 3_600.0
    """Between two runs of retention in one worker; partitions are made two months ahead, so a day does no harm."""
    default_daily_usd: Annotated[Decimal, Field(ge=0, le=1_000_000_000)] | None = None
    """Daily limit of an organisation nobody set a budget for; None refuses its calls."""
    credentials: dict[str, SecretStr] = {}
    """API keys by provider, or by `provider.org`, in lower case: CALLGATE_WORKER__CREDENTIALS__OPENAI."""
    credentials_dir: Path | None = None
    """A folder with one key per file, named likewise; read again when a file changes."""
    connections_max: Annotated[int, Field(ge=1, le=20_000)] = 2_000
    """Connections to one provider."""
    request_memory_bytes_max: Annotated[int, Field(ge=2**20)] = 128 * 2**20
    """
    Requests above 64 KiB that a process has in its memory at once; the others wait in the ledger.

    One takes three times its size, or six times if a text of it has a character beyond U+FFFF. An organisation gets
    half of it at most.
    """
    data_dir: Path = Path(".callgate")
    """Where embedded services and `callgate up` keep their files."""
    flower_address: str = "127.0.0.1"
    flower_port: Annotated[int, Field(ge=1, le=65_535)] = 5555
    flower_url_prefix: Annotated[str, Field(pattern=r"^/?([\w.~-]+(/[\w.~-]+)*)?/?$")] = ""
    """The path that a proxy shows Flower under, such as `ops/flower`; the proxy hands the path on as it is."""
    flower_basic_auth: SecretStr | None = None
    """`user:password` for Flower; without it Flower starts on a loopback address only."""
    flower_read_only: bool = True
    """
    False lets Flower's users command workers, and send any task to any pipeline on this broker. Commands to callgate's
    own workers have no effect either way: they obey none.
    """
    log_json: bool = False
    """One JSON object per log line instead of text for people."""

    @field_validator("flower_url_prefix")
    @classmethod
    def _without_slashes(cls, path: str) -> str:
        return path.strip("/")

    @property
    def default_limit_nano_usd(self) -> int | None:
        """`default_daily_usd` as the ledger counts it."""
        return None if self.default_daily_usd is None else hold_nano_usd(self.default_daily_usd)


class WorkerSettings(ClientSettings):
    """Everything a worker process is told."""

    catalogue: Path | None = CATALOGUE
    worker: WorkerOptions = WorkerOptions()

    def api_keys(self, providers: Collection[str]) -> dict[str, SecretStr]:
        """
        API keys by `provider` or `provider.org`, OpenAI's own variable included.

        Variables are upper case by custom, so they name a provider in any case, but an organisation exactly.

        Raises:
            ConfigurationError: A variable names none of the providers, or more than one, or is there twice.
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
    """Names of keys as the environment writes them, by the lower case in which they were read."""
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
    """`OPENAI.Acme` as `openai.Acme`, if that is how the catalogue writes its provider."""
    folded = name.lower() + "."
    matching = [p for p in providers if folded.startswith(p.lower() + ".")]
    if len(matching) == 1:
        return matching[0] + name[len(matching[0]) :]
    what = f"is any of the providers {', '.join(matching)}" if matching else "is no provider"
    raise ConfigurationError(
        f"{CREDENTIALS_PREFIX}{name} {what} in the catalogue, which has"
        f" {', '.join(sorted(providers)) or 'none'}; if no variable can say it: {INTO_A_FILE}"
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
    Assert what must hold between settings; each sentence says what would break.

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


def _no_time_to_record(settings: WorkerSettings) -> str | None:
    # A record's back-off is at most a third of the grace. No lease notices an outage shorter than half of it.
    worker = settings.worker
    waits_s = max(worker.attempt_grace_s / 3, worker.process_lease_s / 2)
    if settings.ledger_timeout_s + waits_s < worker.attempt_grace_s:
        return None
    return (
        f"CALLGATE_WORKER__ATTEMPT_GRACE_S ({worker.attempt_grace_s}) must exceed CALLGATE_LEDGER_TIMEOUT_S"
        f" ({settings.ledger_timeout_s}) plus a third of itself, and plus half of CALLGATE_WORKER__PROCESS_LEASE_S"
        f" ({worker.process_lease_s}), or an outage of Postgres leaves no time to record and costs attempts"
    )
