"""Which Postgres callgate needs, and which ledger this version of it can use."""

from __future__ import annotations

from callgate.domain.errors import ConfigurationError, NotMigrated

POSTGRES_MIN = 16
VERSION = "SELECT current_setting('server_version_num')::int"
"""Returns the server's version as a number: 160004 for 16.4."""
SCHEMA_REVISION = "0002"
"""The newest migration that this version knows."""
RELEASES = {"0001": "0.1", "0002": "0.2"}
"""Which release of callgate brought a schema."""
SCHEMA = "SELECT revision, serves_from FROM callgate_schema_v1()"
"""Asked at connect. A ledger of 0.1 does not have this function."""


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


def require_schema(revision: str, serves_from: str, *, known: str = SCHEMA_REVISION) -> None:
    """
    Check that this version can use a ledger.

    Raises:
        NotMigrated: It cannot; the message says which versions go together.
    """
    if revision < known:
        raise NotMigrated(
            f"the ledger has the schema {revision} of callgate {_release(revision)}, and this version needs {known}:"
            f" run `callgate migrate` of this version, or install callgate {_release(revision)}"
        )
    if known < serves_from:
        raise NotMigrated(
            f"the ledger has the schema {revision}, which serves callgate {_release(serves_from)} and later, and this"
            f" version knows {known} ({_release(known)}): install a newer version"
        )


OLDER = (
    f"the ledger has no schema that this version knows: it is of callgate 0.1, or there is none. This version"
    f" ({RELEASES[SCHEMA_REVISION]}) needs schema {SCHEMA_REVISION}: run `callgate migrate` of this version. Processes"
    " of 0.1 can go on using the ledger then"
)


def _release(revision: str) -> str:
    return RELEASES.get(revision, f"with schema {revision}")
