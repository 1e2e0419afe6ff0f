"""Describe the shipping service."""

from todoku.descriptor import ServiceDescriptor
from todoku.shipping.settings import ShippingSettings

shipping = ServiceDescriptor(
    name="shipping",
    package="todoku.shipping",
    service="todoku.shipping.service:shipping_service",
    api="todoku.shipping.http:shipping_api",
    effects="todoku.shipping.carriers:carrier_effects",
    settings=ShippingSettings,
    default_port=8082,
    collectors="todoku.shipping.carriers:COLLECTORS",
    readings="todoku.shipping.metrics:READINGS",
    checks="todoku.shipping.checks:check_carrier",
    examples="todoku.contracts.examples:EXAMPLES",
    narration="todoku.shipping.narration:NARRATION",
    colour="magenta",
    audit="todoku.shipping.audit:shipping_audit",
    simulation="todoku.shipping.simulation:SimulatedShipping",
)
