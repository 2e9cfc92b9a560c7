"""The log: events, and lists as served."""

from __future__ import annotations

import sqlalchemy as sa

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of the log."""
    from alembic import op

    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "tastemaker_events",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("item", sa.Text),
        sa.Column("value", sa.Double),
        sa.Column("position", sa.Integer),
        sa.Column("slate", sa.Text),
        sa.Column("session", sa.Text),
        sa.Column("query", sa.Text),
        sa.Column("experiment", sa.Text),
        sa.Column("arm", sa.Text),
        sa.Column("system", sa.Text),
        sa.Column("snapshot", sa.Text),
        sa.Column("context", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tastemaker_slates",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("slate", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("session", sa.Text),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("snapshot", sa.Text, nullable=False),
        sa.Column("experiment", sa.Text),
        sa.Column("arm", sa.Text),
        sa.Column("items", sa.Text, nullable=False),
        sa.Column("scores", sa.Text, nullable=False),
        sa.Column("propensities", sa.Text),
        sa.Column("query", sa.Text),
        sa.Column("trace", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    there = sa.text("experiment IS NOT NULL")
    for table, key in (("events", "key"), ("slates", "slate")):
        name = f"tastemaker_{table}"
        op.create_index(f"{name}_{key}", name, [key], unique=True)
        op.create_index(f"{name}_user", name, ["user", "id"])
        op.create_index(f"{name}_experiment", name, ["experiment", "id"], sqlite_where=there, postgresql_where=there)
