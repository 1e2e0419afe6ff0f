"""Define the port to a message broker; NATS JetStream and an in-memory broker implement it."""

from todoku.broker.port import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    BrokerUnsuitable,
    Delivery,
    MessageTooLarge,
    Outgoing,
    Progress,
    Stored,
    Subscription,
)

__all__ = [
    "Broker",
    "BrokerError",
    "BrokerUnavailable",
    "BrokerUnsuitable",
    "Delivery",
    "MessageTooLarge",
    "Outgoing",
    "Progress",
    "Stored",
    "Subscription",
]
