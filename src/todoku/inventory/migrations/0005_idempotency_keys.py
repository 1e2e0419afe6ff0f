"""Add the engine's table of idempotency keys."""

from todoku.engine.revisions import create_idempotency_keys


def upgrade() -> None:
    create_idempotency_keys()
