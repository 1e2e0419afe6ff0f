"""The planted bugs. Importing this package registers them, in this order."""

from simulation.planted import (  # noqa: I001
    commits,
    deliveries,
    poison,
    once,
    compensation,
    adjustments,
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
