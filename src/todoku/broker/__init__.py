"""What the engine asks of a message broker, and the brokers that can do it."""

from todoku.broker.port import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    BrokerUnsuitable,
    Delivery,
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
    "Outgoing",
    "Progress",
    "Stored",
    "Subscription",
]
