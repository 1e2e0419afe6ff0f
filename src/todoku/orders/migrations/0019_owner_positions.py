"""Add the engine's table of what each process has handled of the stream."""

from todoku.engine.revisions import create_owner_positions


def upgrade() -> None:
    create_owner_positions()
