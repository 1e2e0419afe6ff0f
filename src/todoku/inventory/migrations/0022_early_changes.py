"""Orders of which something was cancelled before they arrived, each once."""

import sqlalchemy as sa

from todoku.engine.revisions import create_table


def upgrade() -> None:
    create_table("early_changes", sa.Column("order_id", sa.Text, primary_key=True))
