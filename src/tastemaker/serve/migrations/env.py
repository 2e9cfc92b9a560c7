"""What Alembic runs: the revisions, on the connection it is given, in that connection's transaction."""

from __future__ import annotations


def run() -> None:
    """Bring the database of the connection to the revision asked for."""
    from alembic import context

    from tastemaker.serve.tables import VERSION_TABLE, metadata

    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
    context.run_migrations()


run()
