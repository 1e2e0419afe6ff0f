"""Scopes: what a credential permits. Each HTTP operation declares the one that it needs; roles are named
sets of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

OPEN: Final = "open"
"""The scope of operations that anybody may call: health checks and documents."""

ANY: Final = "any"
"""The scope of operations for which every valid credential suffices, whatever it permits."""

ORDERS_CREATE: Final = "orders:create"
ORDERS_READ: Final = "orders:read"
ORDERS_CANCEL: Final = "orders:cancel"
HOLDS_WRITE: Final = "holds:write"
PRODUCTS_READ: Final = "products:read"
PRODUCTS_WRITE: Final = "products:write"
STOCK_WRITE: Final = "stock:write"
SHIPMENTS_READ: Final = "shipments:read"
DEAD_LETTERS_READ: Final = "dead-letters:read"
DEAD_LETTERS_WRITE: Final = "dead-letters:write"
SYSTEM_PAUSE: Final = "system:pause"
REPAIR: Final = "repair"
METRICS_READ: Final = "metrics:read"
KEYS_WRITE: Final = "keys:write"
AUDIT_READ: Final = "audit:read"
PERSONS_WRITE: Final = "persons:write"

OWN_SUFFIX: Final = ":own"

SCOPE_PATTERN: Final = r"^[a-z][a-z0-9-]{0,31}(?::[a-z][a-z0-9-]{0,31}){0,3}\Z"

is_scope = re.compile(SCOPE_PATTERN).fullmatch


def own(scope: str) -> str:
    """Return the scope that permits the same for orders of the caller only."""
    return scope + OWN_SUFFIX


CUSTOMER: Final = frozenset(
    {own(ORDERS_CREATE), own(ORDERS_READ), own(ORDERS_CANCEL), PRODUCTS_READ}
)
SERVICE: Final = frozenset(
    {ORDERS_CREATE, ORDERS_READ, ORDERS_CANCEL, HOLDS_WRITE, PRODUCTS_READ, SHIPMENTS_READ}
)
STAFF: Final = SERVICE | {PRODUCTS_WRITE, STOCK_WRITE, DEAD_LETTERS_READ}
OPERATOR: Final = STAFF | {
    DEAD_LETTERS_WRITE,
    SYSTEM_PAUSE,
    REPAIR,
    METRICS_READ,
    KEYS_WRITE,
    AUDIT_READ,
    PERSONS_WRITE,
}

ROLES: Final[Mapping[str, frozenset[str]]] = {
    "customer": CUSTOMER,
    "staff": STAFF,
    "operator": OPERATOR,
    "service": SERVICE,
}
"""Roles by name. Each is a set of scopes, and nothing else."""


def expand(names: Iterable[str]) -> frozenset[str]:
    """Return scopes, with each role replaced by its own."""
    return frozenset(scope for name in names for scope in ROLES.get(name, (name,)))
