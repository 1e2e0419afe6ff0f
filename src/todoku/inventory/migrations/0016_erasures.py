"""Add the engine's table of persons that were erased."""

from todoku.engine.revisions import create_erasures


def upgrade() -> None:
    create_erasures()
