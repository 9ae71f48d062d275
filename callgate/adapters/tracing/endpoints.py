"""Where providers are, for the spans of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from callgate.adapters.tracing import names
from callgate.domain.catalogue import Catalogue

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider's preset, and its host and port where the catalogue says them."""

    preset: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def endpoints_of(catalogue: Catalogue) -> dict[str, Endpoint]:
    """Of each provider of the catalogue. Own endpoints of organisations are not known here."""
    return {
        name: Endpoint(name, {} if entry.org_endpoints else _attributes(entry.base_url))
        for name, entry in catalogue.providers.items()
    }


def _attributes(base_url: str | None) -> dict[str, Any]:
    parts = urlsplit(base_url or "")
    if not parts.hostname:
        return {}
    port = parts.port or PORTS.get(parts.scheme, 0)
    return {names.SERVER_ADDRESS: parts.hostname, names.SERVER_PORT: port}
