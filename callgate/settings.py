"""
The client's settings: where the ledger and the broker are.

They are read once, from `CALLGATE_*` variables. An unknown variable is an error: if a misspelt one were ignored, the
setting would silently keep its default. Variables under `CALLGATE_WORKER__` belong to the worker
(`config/settings.py`); a client ignores them.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from callgate.domain.errors import ConfigurationError
from callgate.domain.urls import escape_advice, login_fault, url_fault

PREFIX = "CALLGATE_"
WORKER_PREFIX = "CALLGATE_WORKER__"
EMBEDDED = "CALLGATE_EMBEDDED"
"""1: take the URLs and the catalogue from the `callgate up` that runs in the data folder."""
DATA_DIR = "CALLGATE_WORKER__DATA_DIR"
REDIS_SCHEMES = ("redis", "rediss")
REDIS_OPTIONS = {
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"
}  # fmt: skip
CERT_REQS = ("required", "optional", "none")
URLS = ("CALLGATE_DATABASE_URL", "CALLGATE_BROKER_URL")
SHARED = (*URLS, "CALLGATE_CATALOGUE")
"""Settings that a client must share with its workers."""
KUBERNETES_SERVICE = re.compile(
    r"CALLGATE_(?!\w*__)(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT_\d+_\w+=|PORT=\w+://)"
)
"""
Variables that Kubernetes sets in every pod for a Service called callgate or callgate-something.

Kubernetes sets CALLGATE_FLOWER_PORT to tcp://10.0.0.1:5555; with any other value it is a misspelt setting. No setting
can have such a name: CALLGATE_WORKER__FLOWER_PORT has a double underscore.
"""
RENAMED = {
    "CALLGATE_POLL_S_MAX": "CALLGATE_POLL_MAX_S",
    "CALLGATE_WORKER__DRAIN_S": "CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S",
    "CALLGATE_WORKER__GRACE_S": "CALLGATE_WORKER__ATTEMPT_GRACE_S",
    "CALLGATE_WORKER__IN_FLIGHT_MAX": "CALLGATE_WORKER__CONCURRENCY",
    "CALLGATE_WORKER__LEASE_S": "CALLGATE_WORKER__PROCESS_LEASE_S",
    "CALLGATE_WORKER__REQUEST_MEMORY_BYTES_MAX": "CALLGATE_WORKER__REQUEST_MEMORY_MAX_BYTES",
    "CALLGATE_WORKER__SUSPECTS_MAX": "CALLGATE_WORKER__QUARANTINE_PROCESSES_MAX",
    "CALLGATE_WORKER__SWEEP_SLACK_S": "CALLGATE_WORKER__SWEEP_MIN_AGE_S",
}
"""The new name by the old one. An old name is an error that says the new one: an ignored setting would be a default."""
Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]


class ClientSettings(BaseSettings):
    """Settings that a pipeline needs to submit calls and read results."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        # Docker Compose passes an unset variable on as an empty string.
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
    )

    database_url: SecretStr
    """
    Postgres 16 or later, as `postgresql://user:password@host:5432/name`: any URL that libpq accepts.

    Several hosts are tried in turn: `postgresql://user@one:5432,two:5432/name`.
    """
    broker_url: SecretStr
    """Redis 7 or later, or Valkey, as `redis://host:6379/0`. A cluster is not supported."""
    catalogue: Path | None = None
    """The TOML file of providers, call types and prices. None: OpenAI with default limits."""
    ledger_timeout_s: Annotated[float, Field(ge=0.1, le=3_600, allow_inf_nan=False)] = 5.0
    """Timeout of Postgres. Too low: false alarms under load. Too high: callers hang in an outage."""
    broker_timeout_s: Seconds = 3.0
    """Timeout of the broker."""
    broker_prefix: Annotated[str, Field(pattern=r"^[a-z0-9:._-]*$")] = ""
    """Prefix of every key in the broker; the same in every process that uses it."""
    cache_url: SecretStr | None = None
    """
    Redis or Valkey for copies of budget figures that the processes of one login share; None: each has its own.

    It needs the extra `callgate[cache]`.
    """
    budget_cache_ttl_s: Seconds = 1.0
    """How old the figures of `client.budgets()` may be."""
    operator: Annotated[str, Field(pattern=r"\S", max_length=200)] | None = None
    """The operator's name in the action log; None: the user of the system."""
    poll_max_s: Seconds = 0.25
    """The longest pause between two polls for a result."""
    tracing: bool = False
    """Make OpenTelemetry spans of calls; it needs the extra `callgate[tracing]`, see docs/tracing.md."""

    @field_validator("database_url", "broker_url", "cache_url")
    @classmethod
    def _is_url(cls, url: SecretStr | None) -> SecretStr | None:
        """Without this check, a URL without a scheme would fail much later, inside a library."""
        if url is not None:
            if "://" not in url.get_secret_value():
                raise ValueError("not a URL: it has no scheme like redis:// or postgresql://")
            if re.search(r"\s", url.get_secret_value()):
                raise ValueError("contains white space; in a password a space is written %20")
        return url

    @field_validator("database_url")
    @classmethod
    def _can_be_connected_to(cls, url: SecretStr) -> SecretStr:
        """Have libpq parse it, without connecting."""
        from callgate.adapters.postgres.url import unusable

        text = url.get_secret_value()
        if reason := login_fault(text, "@/"):
            raise ValueError(reason)
        if reason := unusable(text):
            # A query with an @ is probably the rest of a password, so no option name in it is quoted.
            is_quotable = "port" not in reason and "@" not in text.partition("?")[2]
            raise ValueError(reason if is_quotable else f"its port is no number; {escape_advice()}")
        return url

    @field_validator("broker_url", "cache_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        """
        Accept only what both kombu and redis-py accept; anything else would end in a traceback.

        An unescaped password ends at its first slash, and the part before it would be quoted as the port.
        """
        if url is None:
            return None
        if reason := url_fault(url.get_secret_value()):
            raise ValueError(reason)
        parts = urlsplit(url.get_secret_value())
        if not url.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in REDIS_SCHEMES)):
            raise ValueError("must begin with redis:// or rediss://")
        if not re.fullmatch(r"(/\d*)?", parts.path) or parts.fragment:
            raise ValueError("after the port only /0 or another number of a database may follow")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.query and (parts.scheme != "rediss" or not options.keys() <= REDIS_OPTIONS):
            raise ValueError(
                f"after a ? it takes {', '.join(sorted(REDIS_OPTIONS))}, with rediss:// only"
            )
        if options.get("ssl_cert_reqs", "required") not in CERT_REQS:
            raise ValueError(f"ssl_cert_reqs is one of {', '.join(CERT_REQS)}")
        return url


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load_settings(cls: type[SettingsT], **urls: str) -> SettingsT:
    """
    Build settings from this process's `CALLGATE_*` variables.

    Args:
        urls: `database_url` and `broker_url`, if the caller sets them instead of the environment.

    Raises:
        ConfigurationError: One is missing, unknown or out of bounds; all such are named at once.
    """
    wrong = list(_setting_faults(cls, os.environ))
    try:
        given: dict[str, Any] = {**_embedded(os.environ), **urls}
        settings = cls(**given)
    except ValidationError as exc:
        wrong += [_complaint(error["loc"], error["msg"]) for error in exc.errors()]
    except SettingsError:
        # A whole table like CALLGATE_WORKER that is not JSON. `_setting_faults` has named it: it is not a setting.
        wrong = wrong or ["a variable does not hold JSON where it must"]
    if wrong:
        raise ConfigurationError("; ".join(wrong))
    return settings


def _embedded(environ: Mapping[str, str]) -> dict[str, str]:
    """Shared settings that are not set, from the file of a running `callgate up`, if the environment asks for it."""
    if environ.get(EMBEDDED, "0") in ("", "0"):
        return {}
    if environ[EMBEDDED] != "1":
        raise ConfigurationError(f"{EMBEDDED}: must be 1 or 0")
    file = Path(environ.get(DATA_DIR, ".callgate")) / "env"
    try:
        lines = file.read_text().splitlines()
    except OSError as exc:
        raise ConfigurationError(
            f"{EMBEDDED}: no `callgate up` runs in {file.parent}: {file} cannot be read ({exc.strerror})"
        ) from exc
    written = dict(word.partition("=")[::2] for line in lines for word in shlex.split(line))
    return {
        name.removeprefix(PREFIX).lower(): written[name]
        for name in SHARED
        if not environ.get(name) and name in written
    }


def _complaint(location: tuple[str | int, ...], message: str) -> str:
    variable = PREFIX + "__".join(str(part).upper() for part in location)
    if message != "Field required":
        return f"{variable}: {message.removeprefix('Value error, ')}"
    if variable in URLS:
        return f"{variable}: not set (for development: run `callgate up`, and set {EMBEDDED}=1)"
    return f"{variable}: not set"


def _setting_faults(cls: type[BaseSettings], environ: Mapping[str, str]) -> Iterable[str]:
    """
    One complaint per `CALLGATE_*` variable that `cls` does not read.

    A client skips `CALLGATE_WORKER__*`: clients and workers often share one environment, and a client cannot import the
    worker's settings to know their names.
    """
    known = {*_variables(cls, PREFIX), EMBEDDED}
    reads_worker = "worker" in cls.model_fields
    for name in sorted(environ):
        if not name.startswith(PREFIX) or KUBERNETES_SERVICE.match(f"{name}={environ[name]}"):
            continue
        if name.startswith(WORKER_PREFIX) and not reads_worker:
            continue
        if name in known or any(k.endswith("__") and name.startswith(k) for k in known):
            continue
        if new := RENAMED.get(name):
            yield f"{name}: renamed, use {new}"
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield f"{name}: no such setting{hint}"


def _variables(cls: type[BaseModel], prefix: str) -> Iterable[str]:
    """Every variable that a settings class reads; a name that ends in `__` is the prefix of a free mapping."""
    for name, field in cls.model_fields.items():
        variable = prefix + name.upper()
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _variables(annotation, variable + "__")
        elif getattr(annotation, "__origin__", None) is dict:
            yield variable + "__"
        else:
            yield variable
