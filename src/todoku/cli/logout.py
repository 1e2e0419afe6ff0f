"""`todoku logout`: see `todoku.cli.login`."""

from todoku.cli.login import logout

__all__ = ["logout"]
