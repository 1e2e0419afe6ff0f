"""Add the engine's table of idempotency keys."""

from todoku.engine.revisions import create_idempotency_keys

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    create_idempotency_keys()
