"""Identity: scopes, roles, and who sends a request."""

from todoku.identity.caller import Caller
from todoku.identity.scopes import OPEN, ROLES

__all__ = ["OPEN", "ROLES", "Caller"]
