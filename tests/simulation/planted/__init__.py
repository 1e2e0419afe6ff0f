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
