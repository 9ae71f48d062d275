"""Alembic's environment: the database comes from the caller (`callgate migrate`, tests), never from an ini file."""

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.db.tables import PARTITION_NAME, metadata


def run() -> None:
    """Run the migrations in one transaction per revision."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = context.config.get_main_option("sqlalchemy.url")
    engine = create_engine(str(url), poolclass=NullPool)
    with engine.connect() as own:
        _migrate(own)
        own.commit()


def _migrate(connection) -> None:  # type: ignore[no-untyped-def]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        version_table="callgate_version",
        include_name=lambda name, kind, parents: not PARTITION_NAME.fullmatch(name or ""),
    )
    with context.begin_transaction():
        context.run_migrations()


run()
