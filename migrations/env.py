"""Alembic's environment: the database comes from the caller (`callgate migrate`, tests), never from an ini file."""

from alembic import context

from callgate.adapters.postgres.tables import PARTITION_NAME, metadata


def run() -> None:
    """Run the migrations in the caller's transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        transaction_per_migration=True,
        version_table="callgate_version",
        include_name=lambda name, kind, parents: not PARTITION_NAME.fullmatch(name or ""),
    )
    with context.begin_transaction():
        context.run_migrations()


run()
