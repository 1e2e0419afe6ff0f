"""The planted bugs. Importing this package registers them, in this order."""

from simulation.planted import (  # noqa: I001
    commits,
    deliveries,
    poison,
    once,
    compensation,
    adjustments,
    backorders,
    cancellation,
    holds,
    catalogue,
    waiting,
    pauses,
    keys,
    recovery,
    replicas,
    feed,
)

__all__ = [
    "adjustments",
    "backorders",
    "cancellation",
    "catalogue",
    "commits",
    "compensation",
    "deliveries",
    "feed",
    "holds",
    "keys",
    "once",
    "pauses",
    "poison",
    "recovery",
    "replicas",
    "waiting",
]
