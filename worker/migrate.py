"""Bring a database to the newest schema, or back."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from callgate.db.refusals import TryAgain, translated
from callgate.db.session import open_engine
from callgate.db.version import VERSION, major_version
from callgate.domain.errors import ConfigurationError, LedgerUnavailable

SCRIPTS = Path(__file__).parents[1] / "migrations"
CONNECT_TIMEOUT_S = 10


def migrate(database_url: str, revision: str = "head") -> None:
    """
    Run the migrations up to `revision`; `base` takes everything down. All of it is one transaction.

    Raises:
        LedgerUnavailable: The database did not answer.
        NotPermitted: The login does not own the ledger, or may not create it.
        ConfigurationError: The URL cannot be used, no schema of its search_path exists, the server is too old, or roles
            are missing and the login may not make them.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    engine = open_engine(
        database_url, timeout_s=CONNECT_TIMEOUT_S, isolation_level="READ COMMITTED",
        skip_autocommit_rollback=False,
    )  # fmt: skip
    try:
        with translated(), engine.begin() as connection:
            major_version(connection.exec_driver_sql(VERSION).scalar_one())
            if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
                raise ConfigurationError(
                    "no schema of the search_path exists: CREATE SCHEMA first, or change options= of"
                    " CALLGATE_DATABASE_URL, or the login's own search_path"
                )
            config.attributes["connection"] = connection
            move = command.downgrade if revision == "base" else command.upgrade
            move(config, revision)
    except TryAgain as exc:
        raise LedgerUnavailable(f"cannot migrate now: {exc}") from exc
