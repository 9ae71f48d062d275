"""Finds URLs whose password would be parsed as something else, and then perhaps printed in an error."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

PORTS = {"https": 443, "http": 80}
"""The port of a URL that names none."""
SPECIAL = "@/?#:%[]"
"""Characters that must be escaped in a user or a password (RFC 3986, section 3.2.1)."""


def escape_advice(characters: str = SPECIAL) -> str:
    """Advice for an error message: how to escape these characters in a user or a password."""
    return "in a user or password " + ", ".join(
        f"{character} is written {quote(character, safe='')}" for character in characters
    )


def login_fault(url: str, ends: str) -> str | None:
    """
    Explain why a parser would misread the URL's user and password; None if it would not.

    The last `@` ends the login, unless it is part of the query. The message quotes nothing of the URL except the
    characters to escape.

    Args:
        ends: Characters at which the parser ends the login, or the part of the URL that can hold one.
    """
    rest = url.partition("://")[2]
    main, _, query = rest.partition("?")
    after = main.rpartition("@")[2]
    is_query = "/" in after and "=" in query.partition("@")[0] and ("@" in main or ":" not in main)
    user, _, password = (main if is_query else rest).rpartition("@")[0].partition(":")
    login = user + password
    if not any(character in login for character in ends):
        return None
    return escape_advice("".join(character for character in SPECIAL if character in login))


def url_fault(url: str) -> str | None:
    """Explain why `urllib.parse` would misread the URL, without quoting it; None if it would not."""
    start = re.split("[/?#]", url.partition("://")[2])[0]
    if ":" in start and (reason := login_fault(url, "/?#[]")):
        return reason
    try:
        _ = urlsplit(url).port
    except ValueError:
        # The exception's own text is not used: it quotes the part that failed, which may be the password.
        return f"its port is not a number, or its host is not a name; {escape_advice()}"
    return None


def host_of(url: str) -> str:
    """Host and port of a URL, and nothing else of it, so that they can be shown; empty if it has none."""
    if url_fault(url):
        return ""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or PORTS.get(parts.scheme)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if host and port else shown


def without_login(url: str) -> str:
    """The URL without its user and password, so that it can be shown."""
    scheme, has_scheme, rest = url.partition("://")
    return f"{scheme}{has_scheme}{rest.rpartition('@')[2]}"
