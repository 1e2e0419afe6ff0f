"""The catalogue has versions and is published; a product may be archived, and a sample costs nothing."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_table


def upgrade() -> None:
    with op.batch_alter_table("products") as products:
        products.add_column(sa.Column("version", Integer64, nullable=False, server_default="1"))
        products.add_column(sa.Column("changed_at", Timestamp))
        products.add_column(sa.Column("archived", Integer64, nullable=False, server_default="0"))
        products.create_check_constraint("archived_or_not", "archived IN (0, 1)")
        products.drop_constraint("price_exact", type_="check")
        products.create_check_constraint("price_exact", "price BETWEEN 0 AND 9007199254740991")
    op.execute("UPDATE products SET changed_at = updated_at")
    create_table(
        "catalogue_publications",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("due_at", Timestamp),
    )
    # Products from before were never published: all are, as soon as the service starts.
    op.execute(
        "INSERT INTO catalogue_publications (id, after, due_at) "
        "SELECT 'catalogue', '', 0 WHERE EXISTS (SELECT 1 FROM products)"
    )
