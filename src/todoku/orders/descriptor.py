"""Describe the orders service."""

from todoku.descriptor import ServiceDescriptor
from todoku.orders.settings import OrdersSettings

orders = ServiceDescriptor(
    name="orders",
    package="todoku.orders",
    service="todoku.orders.service:orders_service",
    api="todoku.orders.http:orders_api",
    settings=OrdersSettings,
    default_port=8080,
    examples="todoku.contracts.examples:EXAMPLES",
    narration="todoku.orders.narration:NARRATION",
    colour="cyan",
    collectors="todoku.orders.metrics:COLLECTORS",
    readings="todoku.orders.metrics:READINGS",
    audit="todoku.orders.audit:orders_audit",
    simulation="todoku.orders.simulation:SimulatedOrders",
)
