"""Alembic's environment. The caller (`callgate migrate`, a test) passes the connection; there is no ini file."""

from alembic import context


def run() -> None:
    """Run the migrations in the caller's transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        transaction_per_migration=True,
        version_table="callgate_version",
    )
    with context.begin_transaction():
        context.run_migrations()


run()
