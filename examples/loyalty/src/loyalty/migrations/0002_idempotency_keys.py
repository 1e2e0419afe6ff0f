"""The engine's table of idempotency keys."""

from todoku.engine.revisions import create_idempotency_keys

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_idempotency_keys()
