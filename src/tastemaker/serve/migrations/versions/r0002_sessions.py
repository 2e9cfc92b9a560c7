"""Sessions, and what is kept of the erased."""

from __future__ import annotations

import sqlalchemy as sa

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their tables."""
    from alembic import op

    op.create_table(
        "tastemaker_sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user", sa.Text),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("snapshot", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    op.create_index("tastemaker_sessions_user", "tastemaker_sessions", ["user"])
    op.create_index("tastemaker_sessions_expires", "tastemaker_sessions", ["expires"])
    op.create_table(
        "tastemaker_erased",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tastemaker_about",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
