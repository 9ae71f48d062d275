"""Bring a database to the newest schema, or back."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from callgate.db.session import NOT_PERMITTED_SQLSTATE
from callgate.db.version import VERSION, major_version
from callgate.domain.errors import LedgerUnavailable, NotPermitted

SCRIPTS = Path(__file__).parents[1] / "migrations"


def migrate(database_url: str, revision: str = "head") -> None:
    """
    Run the migrations up to `revision`; `base` takes everything down.

    Raises:
        LedgerUnavailable: The database did not answer.
        NotPermitted: The login does not own the ledger, or may not create it.
        ConfigurationError: The server is too old, or roles are missing, and the login may not make them.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    engine = create_engine(database_url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    try:
        with engine.begin() as connection:
            major_version(connection.exec_driver_sql(VERSION).scalar_one())
            config.attributes["connection"] = connection
            move = command.downgrade if revision == "base" else command.upgrade
            move(config, revision)
    except OperationalError as exc:
        raise LedgerUnavailable(f"cannot migrate: {type(exc.orig).__name__}: {exc.orig}") from exc
    except ProgrammingError as exc:
        if getattr(exc.orig, "pgcode", None) != NOT_PERMITTED_SQLSTATE:
            raise
        raise NotPermitted(
            f"cannot migrate: {exc.orig}; CALLGATE_DATABASE_URL must name the login that owns the tables"
        ) from exc
