"""
Reads a database URL as libpq does, for every part of callgate.

So several hosts, `target_session_attrs`, `options` and all other parameters mean the same as in `psql`. No part of an
unreadable URL is quoted: it may belong to the password.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

from callgate.domain.errors import ConfigurationError

SCHEME = "postgresql"
SCHEMES = (SCHEME, "postgres", "postgresql+psycopg2")
"""The last one names the driver, as SQLAlchemy does."""
ESCAPES = "in a password, / is written %2F, @ %40, ? %3F and % %25"
_UNKNOWN_OPTION = re.compile(r'invalid URI query parameter: ("\w+")')
CONNECT_TIMEOUT_MIN_S = 2
"""libpq treats 1 as 2."""


def parameters(url: str) -> dict[str, str]:
    """
    Split a URL into parameters, as libpq does.

    Raises:
        ConfigurationError: libpq cannot read it, or a part of its password is in the wrong place.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ConfigurationError("must begin with postgresql://")
    try:
        found: dict[str, str] = parse_dsn(f"{SCHEME}://{rest}")
    except ProgrammingError as exc:
        raise ConfigurationError(_complaint(str(exc), rest)) from None
    if "@" in found.get("host", "") + found.get("dbname", ""):
        raise ConfigurationError(f"has an @ too many: {ESCAPES}")
    if not re.fullmatch(r"[0-9,]*", found.get("port", "")):
        raise ConfigurationError(f"its port is no number: {ESCAPES}")
    return found


def unusable(url: str) -> str | None:
    """Why no connection could be made with this URL, or None."""
    try:
        parameters(url)
    except ConfigurationError as exc:
        return str(exc)
    return None


def connect_arguments(url: str, timeout_s: float) -> dict[str, Any]:
    """
    What psycopg2 connects with.

    Args:
        timeout_s: For all hosts of the URL together, as far as libpq can count.
    """
    found = parameters(url)
    hosts = found.get("host", found.get("hostaddr", "")).count(",") + 1
    # Of several hosts one is the primary; a URL may ask for another choice.
    choice = {"target_session_attrs": "read-write"} if hosts > 1 else {}
    return {
        "application_name": "callgate",
        **choice,
        **found,
        "connect_timeout": max(CONNECT_TIMEOUT_MIN_S, round(timeout_s / hosts)),
    }


def login_secret(url: str) -> str | None:
    """What only those know who may use a URL's login, with its place, as one text; None if it has no password."""
    found = parameters(url)
    if not found.get("password"):
        return None
    names = ("user", "password", "host", "hostaddr", "port", "dbname")
    return json.dumps([found.get(name) for name in names])


def shown(url: str) -> str:
    """Where a URL leads, without the password and whatever else is in it."""
    found = parameters(url)
    hosts = found.get("host", "").split(",")
    ports = found.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = (f"[{host}]" if ":" in host else quote(host, safe="") for host in hosts)
    addresses = ",".join(
        f"{place}:{port}" if port else place for place, port in zip(places, ports, strict=False)
    )
    user = f"{quote(found['user'])}@" if "user" in found else ""
    return f"{SCHEME}://{user}{addresses}/{quote(found.get('dbname', ''))}"


def _complaint(said: str, rest: str) -> str:
    option = _UNKNOWN_OPTION.search(said)
    # Behind an @ that comes after the ? it could be the rest of a password.
    if option and "@" not in rest.partition("?")[2]:
        return f"libpq has no option {option[1]}"
    return f"libpq cannot read it: {ESCAPES}"
