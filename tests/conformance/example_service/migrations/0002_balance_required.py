"""Every account has a balance, and room for a note."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.alter_column("balance", nullable=False)
        accounts.add_column(sa.Column("note", sa.Text))
