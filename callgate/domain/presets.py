"""
Presets: what is known about the servers of one protocol, each line with its source and the day it was read.

A protocol's folder has them in `presets.toml`: `[sources]`, `[defaults]` for the protocol, and a table for each preset.
An entry of the catalogue lies above its preset, and that above the protocol's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from callgate.domain.catalogue import ProviderEntry, RequestField
from callgate.domain.errors import ConfigurationError
from callgate.domain.reserved_fields import plain_name

DEFAULTS = "defaults"
DEFAULT_PROTOCOL: str = ProviderEntry.model_fields["protocol"].default
NEEDS = "needs"
"""Names the lines that only an operator knows, for example Azure's `base_url`."""
USAGE_FIELDS = "usage_fields"
"""Names of counts of tokens beside OpenAI's. The table in `http/usage.py` must know each; a test compares them."""
RESERVED = "reserved_fields"
"""Names that the adapter writes itself, beside `RESERVED_FIELDS`. No `extra_fields` can have them."""
OWN_LINES = frozenset({NEEDS, USAGE_FIELDS, RESERVED})
"""Lines of a preset that are no keys of the catalogue."""
OPERATORS_KEYS = frozenset({"preset", "protocol", "models", "extra_fields", "unwraps"})
"""Keys of the catalogue that no preset may have: they are an operator's decisions."""
DOCUMENTED = ProviderEntry.model_fields.keys() - OPERATORS_KEYS | OWN_LINES
"""Lines that a preset may have."""
SAFE: Mapping[str, Any] = {
    "cannot": list(get_args(RequestField)),
    "temperature_max": 1.0,
    "system_first": True,
    "object_arguments": True,
    "rate_limit_headers": "none",
    "json_schema": "prompt",
}
"""
What a protocol can do as far as its `[defaults]` say nothing: nothing that could be dropped, or read wrongly.

The defaults of `ProviderEntry` are OpenAI's dialect, so they hold for its own protocol only.
"""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Value):
    """A page, or a file, and when it was read."""

    url: Annotated[str, Field(min_length=1)]
    as_of: date


class Line(_Value):
    """What one key has for a provider, and why."""

    value: Any
    source: Annotated[str, Field(min_length=1)]
    """The name of a source of the same file."""
    note: str = ""


class Presets(_Value):
    """The presets of one protocol."""

    protocol: str
    sources: dict[str, Source] = {}
    tables: dict[str, dict[str, Line]] = {}
    """The lines of each preset, and of `defaults`."""

    @classmethod
    def of(cls, protocol: str, tables: Mapping[str, Any]) -> Presets:
        """
        Read the tables of a file.

        Raises:
            ValueError: A line has no source, or is none that a preset may have.
        """
        rest = {name: table for name, table in tables.items() if name != "sources"}
        presets = cls(protocol=protocol, sources=tables.get("sources", {}), tables=rest)
        for name, lines in presets.tables.items():
            for key, line in lines.items():
                if key not in DOCUMENTED:
                    raise ValueError(f"{name}.{key}: no preset has this line")
                if line.source not in presets.sources:
                    raise ValueError(f"{name}.{key}: there is no source {line.source!r}")
        return presets

    @property
    def names(self) -> list[str]:
        """The presets that an entry can name."""
        return sorted(self.tables.keys() - {DEFAULTS})

    def value(self, preset: str, key: str, default: Any = None) -> Any:
        """The value of one line."""
        line = self.tables.get(preset, {}).get(key)
        return default if line is None else line.value

    def below(self, preset: str | None) -> dict[str, Any]:
        """What an entry with this preset has as far as it does not say otherwise."""
        safe = {} if self.protocol == DEFAULT_PROTOCOL else SAFE
        lines = {**self.tables.get(DEFAULTS, {}), **self.tables.get(preset or DEFAULTS, {})}
        said = {key: line.value for key, line in lines.items() if key not in OWN_LINES}
        return {**safe, **said}

    def reserved(self, preset: str | None) -> frozenset[str]:
        """Names that its adapter writes itself, as `plain_name` writes them."""
        tables = (DEFAULTS, preset or DEFAULTS)
        return frozenset(
            plain_name(name) for table in tables for name in self.value(table, RESERVED, ())
        )


def merged(entry: Mapping[str, Any], known: Mapping[str, Presets]) -> dict[str, Any]:
    """
    An entry of the catalogue with its preset and its protocol's defaults below it.

    Args:
        entry: As it is written. What is wrong with its types is found when it is validated.
        known: The presets by protocol.

    Raises:
        ConfigurationError: There is no such preset, the entry lacks a line that only an operator knows, or it allows a
            field that the adapter writes. The message begins with the key.
    """
    preset, protocol = entry.get("preset"), entry.get("protocol")
    if not isinstance(preset, str | None) or not isinstance(protocol, str | None):
        return dict(entry)
    if preset is not None and protocol is None:
        protocol = _protocol_of(preset, known)
    presets = known.get(protocol or DEFAULT_PROTOCOL)
    if presets is None:
        return dict(entry)
    if preset is not None and preset not in presets.names:
        raise ConfigurationError(_unknown(preset, presets.names, f" of protocol {protocol!r}"))
    if missing := [key for key in presets.value(preset or "", NEEDS, ()) if key not in entry]:
        raise ConfigurationError(f"{missing[0]}: preset {preset!r} needs it")
    extra, reserved = entry.get("extra_fields"), presets.reserved(preset)
    names = [name for name in extra if isinstance(name, str)] if isinstance(extra, list) else []
    if taken := sorted(name for name in names if plain_name(name) in reserved):
        raise ConfigurationError(f"extra_fields: the adapter writes {', '.join(taken)} itself")
    return {**presets.below(preset), **entry, "protocol": presets.protocol}


def _protocol_of(preset: str, known: Mapping[str, Presets]) -> str:
    """The protocol whose preset it is: the default one if that has it, else the only one."""
    found = [name for name, presets in known.items() if preset in presets.names]
    if DEFAULT_PROTOCOL in found:
        return DEFAULT_PROTOCOL
    if not found:
        names = sorted({name for presets in known.values() for name in presets.names})
        raise ConfigurationError(_unknown(preset, names, ""))
    if len(found) > 1:
        raise ConfigurationError(f"protocol: preset {preset!r} needs one of {', '.join(found)}")
    return found[0]


def _unknown(preset: str, names: list[str], where: str) -> str:
    close = get_close_matches(preset, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f", only {', '.join(names)}"
    return f"preset: there is no {preset!r}{where}{hint}"
