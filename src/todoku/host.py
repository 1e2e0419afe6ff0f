"""Puts the services together, and runs any one of them."""

from todoku.engine import Service
from todoku.inventory.service import inventory
from todoku.orders.service import orders
from todoku.settings import Settings
from todoku.shipping.carriers import Carrier, SimulatedCarrier, pickup_delay
from todoku.shipping.service import shipping


def assemble(settings: Settings, carrier: Carrier | None = None) -> tuple[Service, ...]:
    """Every service of the system, in the order of an order's way. A new service is a line here."""
    delay, seed = settings.carrier_delay_seconds, settings.carrier_seed
    simulated = SimulatedCarrier(success_rate=settings.carrier_success_rate, seed=seed)
    return (
        orders,
        inventory,
        shipping(carrier or simulated, lambda key: pickup_delay(key, delay.low, delay.high, seed)),
    )
