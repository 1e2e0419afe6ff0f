"""On SQLite, an empty history is kept in the sequence in which it is written, with an index by order.

One that has events stays in the sequence of its key: to rebuild it would copy most of the database."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    if connection.scalar(sa.text("SELECT EXISTS (SELECT 1 FROM order_events)")):
        return
    with op.batch_alter_table(
        "order_events", recreate="always", table_kwargs={"sqlite_with_rowid": True}
    ):
        pass
