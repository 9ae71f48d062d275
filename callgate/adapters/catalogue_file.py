"""
Reads the catalogue from its TOML file, and the presets below its providers. No SDK is imported.

Every mistake stops the process at start, with the file and the key named.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from callgate.domain.alert_rules import AlertRules, OrganisationAlerts
from callgate.domain.catalogue import (
    MONTH_MIN_DAYS,
    CallTypePolicy,
    Catalogue,
    Organisations,
    ProviderEntry,
    Retention,
)
from callgate.domain.errors import ConfigurationError
from callgate.domain.presets import Presets, Source, merged
from callgate.domain.price_entry import PriceEntry
from callgate.domain.requests import Name

_KNOWN_KEYS = sorted(
    {
        k
        for entry in (
            Catalogue,
            AlertRules,
            OrganisationAlerts,
            CallTypePolicy,
            ProviderEntry,
            PriceEntry,
            Retention,
            Organisations,
        )
        for k in entry.model_fields
    }
)
RENAMED_KEYS = {"lost_max": "worker_losses_max"}
"""The new key by the old one, for keys of earlier versions."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_RECORDINGS: TypeAdapter[dict[str, Source]] = TypeAdapter(dict[str, Source])
PROVIDERS_PACKAGE = "callgate.adapters.providers"
PRESETS_FILE = "presets.toml"
RECORDINGS_FILE = "recordings.toml"
"""Which presets have a recording of the real provider, in the same folder. `make record` writes it."""


def load_catalogue(path: Path | None) -> Catalogue:
    """
    Read and check the catalogue. Missing tables have the defaults of `domain.catalogue`.

    Args:
        path: None: the defaults for everything.

    Raises:
        ConfigurationError: The file cannot be read, or has mistakes. One message names all of them.
    """
    if path is None:
        return Catalogue()
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"the catalogue {path} (CALLGATE_CATALOGUE) cannot be read: {exc}"
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"the catalogue {path} is not TOML: {exc}") from exc
    mistakes = list(_put_presets_below(fields))
    try:
        catalogue = Catalogue.model_validate(fields)
    except ValidationError as exc:
        mistakes += [_described(error) for error in exc.errors()]
        raise _config_error(path, mistakes) from exc
    if mistakes := [*mistakes, *_mistakes(catalogue)]:
        raise _config_error(path, mistakes)
    return catalogue


@cache
def known_presets() -> Mapping[str, Presets]:
    """The presets of each protocol; empty ones for a protocol without a file."""
    return {
        protocol: Presets.of(protocol, _tables(protocol, PRESETS_FILE)) for protocol in _protocols()
    }


def recordings() -> dict[tuple[str, str], Source]:
    """What each preset was recorded with, by protocol and preset. A preset that is not here is unverified."""
    return {
        (protocol, preset): recording
        for protocol in _protocols()
        for preset, recording in _RECORDINGS.validate_python(
            _tables(protocol, RECORDINGS_FILE)
        ).items()
    }


def _tables(protocol: str, name: str) -> dict[str, Any]:
    """The tables of a file in a protocol's folder; empty if there is none."""
    file = resources.files(PROVIDERS_PACKAGE) / protocol / name
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _put_presets_below(fields: dict[str, Any]) -> Iterator[str]:
    """Complete the providers of a catalogue in place, and yield their mistakes."""
    providers = fields.get("providers")
    if not isinstance(providers, dict):
        return
    for name, entry in providers.items():
        if not isinstance(entry, dict):
            continue
        try:
            providers[name] = merged(entry, known_presets())
        except ConfigurationError as exc:
            yield f"providers.{name}.{exc}"


def _config_error(path: Path, mistakes: list[str]) -> ConfigurationError:
    return ConfigurationError(f"the catalogue {path} cannot be used: " + "; ".join(mistakes))


def _described(error: ErrorDetails) -> str:
    """One validation error as text: `call_types.extraction.deadline_s: Input should be greater than 0`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]]
    key = "".join(parts).removeprefix(".")
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}"
    last = str(error["loc"][-1])
    if new := RENAMED_KEYS.get(last):
        return f"{key}: renamed, use {new}"
    close = get_close_matches(last, _KNOWN_KEYS, n=1)
    return f"{key}: unknown key" + (f", did you mean {close[0]!r}?" if close else "")


def _mistakes(catalogue: Catalogue) -> Iterator[str]:
    """Mistakes that show only when entries are compared with each other."""
    for table, names in (
        ("providers", catalogue.providers),
        ("call_types", catalogue.call_types),
        ("retention.orgs", catalogue.retention.orgs),
    ):
        for name in names:
            if not _is_name(name):
                yield f"{table}.{name}: a request cannot have this name"
    known = sorted(_protocols())
    for name, entry in catalogue.providers.items():
        if entry.protocol not in known:
            yield f"providers.{name}.protocol: there is no {entry.protocol!r}, only {', '.join(known)}"
    yield from _policy_mistakes("default", catalogue.default, catalogue)
    for name, policy in catalogue.call_types.items():
        yield from _policy_mistakes(f"call_types.{name}", policy, catalogue)
    months = catalogue.retention.log_months or 0
    for key in catalogue.retention.keys_outliving_log():
        yield (
            f"retention.{key}: bodies must be deleted before log_months = {months} drops their log:"
            f" within {months * MONTH_MIN_DAYS} days"
        )
    yield from _price_mistakes(catalogue)


def _price_mistakes(catalogue: Catalogue) -> Iterator[str]:
    """Rows of prices that contradict each other, or leave out short inputs."""
    rows: dict[tuple[str, str], list[PriceEntry]] = {}
    for row in catalogue.prices:
        rows.setdefault((row.provider, row.model), []).append(row)
    for (provider, model), found in rows.items():
        name = f"prices: {provider}/{model}"
        if provider not in catalogue.providers:
            yield f"{name}: no provider {provider!r} in the catalogue"
        if len(found) > 1 and any(row.free for row in found):
            yield f"{name}: it is free, so it can have no other row"
        steps = Counter((row.service_tier, row.above_input_tokens) for row in found)
        for (tier, above), count in steps.items():
            if count > 1:
                yield f"{name}: {count} rows for the {tier} tier above {above} input tokens"
        for tier in {tier for tier, _ in steps} - {tier for tier, above in steps if above == 0}:
            yield f"{name}: no row for the {tier} tier has above_input_tokens = 0"


def _protocols() -> Iterator[str]:
    """The protocols that have an adapter: the folders of `callgate/adapters/providers`, without what they share."""
    for folder in resources.files(PROVIDERS_PACKAGE).iterdir():
        if folder.is_dir() and folder.name not in ("http", "__pycache__"):
            yield folder.name


def _policy_mistakes(key: str, policy: CallTypePolicy, catalogue: Catalogue) -> Iterator[str]:
    """Mistakes within one call type's policy, or against the providers."""
    default, limit = policy.max_output_tokens_default, policy.max_output_tokens_max
    if default is not None and default > limit:
        yield f"{key}.max_output_tokens_default: {default} is over max_output_tokens_max {limit}"
    if policy.retry_wait_s > policy.retry_wait_max_s:
        yield (
            f"{key}.retry_wait_s: {policy.retry_wait_s} is over retry_wait_max_s "
            f"{policy.retry_wait_max_s}"
        )
    for pattern in policy.models:
        provider, slash, _ = pattern.partition("/")
        if not slash or not any(fnmatchcase(name, provider) for name in catalogue.providers):
            yield f"{key}.models: {pattern!r} is not provider/model with a provider of the catalogue"


def _is_name(text: str) -> bool:
    """True if a request could use this name."""
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True
