"""URLs that hold a password: what a reader would take for something else, and so might print."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

SPECIAL = "@/?#:%[]"
"""What must be escaped in a user or a password (RFC 3986, section 3.2.1)."""


def escapes(characters: str = SPECIAL) -> str:
    """How to write these characters in a user or a password."""
    return "in a user or password " + ", ".join(
        f"{character} is written {quote(character, safe='')}" for character in characters
    )


def misread_login(url: str, ends: str) -> str | None:
    """
    Why a reader would not find the user and the password where they were meant to be; None if it would.

    The last `@` is taken for the end of the login, unless it stands in a query. Nothing of the URL is quoted but the
    characters to escape.

    Args:
        ends: Characters at which the reader takes the login, or all that may hold one, to be over.
    """
    rest = url.partition("://")[2]
    main, _, query = rest.partition("?")
    after = main.rpartition("@")[2]
    is_query = "/" in after and "=" in query.partition("@")[0] and ("@" in main or ":" not in main)
    user, _, password = (main if is_query else rest).rpartition("@")[0].partition(":")
    login = user + password
    if not any(character in login for character in ends):
        return None
    return escapes("".join(character for character in SPECIAL if character in login))


def misread(url: str) -> str | None:
    """Why `urllib.parse`, and what is built on it, would not read the URL as it was meant; None if it would."""
    start = re.split("[/?#]", url.partition("://")[2])[0]
    if ":" in start and (reason := misread_login(url, "/?#[]")):
        return reason
    try:
        _ = urlsplit(url).port
    except ValueError:
        # In its words is what could not be read, which may be the password.
        return f"its port is no number, or its host no name; {escapes()}"
    return None
