"""The doctor's check of connections: can a worker here reach its providers at all?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.services.doctor import Check, Seen, failure, named, warning
from callgate.services.providers import WorkerKeys

PROXY = "requests leave through a proxy, so no connection was tried"


@dataclass(frozen=True, slots=True)
class Ways:
    """How the check looks."""

    base_url: Callable[[str], str]
    """The URL of a provider, by its name in the catalogue."""
    unreachable: Callable[[Mapping[str, str]], Mapping[str, str]]
    """Tries to connect to URLs; returns by name what failed."""
    has_proxy: Callable[[], bool]


def reachable_check(
    catalogue: Catalogue, read_credentials: Callable[[], WorkerKeys | None], ways: Ways
) -> Check:
    """
    Whether the providers that a worker here would call can be connected to. Nothing is sent.

    Args:
        read_credentials: As in `key_checks`, which says what is wrong with them.
    """

    def look() -> Seen | None:
        try:
            credentials = read_credentials()
        except ConfigurationError:
            return None
        if credentials is None:
            return None
        used = [
            name
            for name, entry in sorted(catalogue.providers.items())
            if not entry.needs_key or credentials.has_any(name)
        ]
        if not used:
            return None
        if ways.has_proxy():
            return Seen(PROXY)
        return _seen(used, ways.unreachable({name: ways.base_url(name) for name in used}))

    return Check("reachable", look)


def _seen(used: list[str], faults: Mapping[str, str]) -> Seen:
    if not faults:
        return Seen(f"a connection to each of {len(used)} providers can be opened")
    found = named([f"{name} ({fault})" for name, fault in sorted(faults.items())])
    if len(faults) < len(used):
        return warning(f"{len(faults)} of {len(used)} providers cannot be reached: {found}")
    return failure(f"no provider can be reached from here: {found}")
