"""Identity: scopes, roles, and who sends a request."""

from todoku.identity.caller import Caller
from todoku.identity.scopes import ANY, OPEN, ROLES

__all__ = ["ANY", "OPEN", "ROLES", "Caller"]
