"""Add the engine's table of API keys."""

from todoku.engine.revisions import create_api_keys


def upgrade() -> None:
    create_api_keys()
