"""Add the engine's tables of pauses."""

from todoku.engine.revisions import create_pauses


def upgrade() -> None:
    create_pauses()
