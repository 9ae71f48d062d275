"""Which Postgres callgate needs."""

from __future__ import annotations

from callgate.domain.errors import ConfigurationError

POSTGRES_MIN = 16
VERSION = "SELECT current_setting('server_version_num')::int"
"""Returns the server's version as a number: 160004 for 16.4."""


def major_version(number: int) -> int:
    """
    The major version of a server that is new enough, by its number.

    Raises:
        ConfigurationError: It is too old.
    """
    major = number // 10_000
    if major < POSTGRES_MIN:
        raise ConfigurationError(
            f"Postgres {major} is too old: callgate needs {POSTGRES_MIN} or later"
        )
    return major
