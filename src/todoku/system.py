"""List the services of a system, and find the system that the settings name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from todoku.descriptor import Effects, ServiceDescriptor
from todoku.inventory.descriptor import inventory
from todoku.orders.descriptor import orders
from todoku.settings import Settings
from todoku.shipping.descriptor import shipping

if TYPE_CHECKING:
    from todoku.engine import Service


class System:
    """Services that work together, in the order in which an order passes them."""

    def __init__(self, *services: ServiceDescriptor) -> None:
        self.services = services
        self._by_name = {service.name: service for service in services}

    def __iter__(self) -> Iterator[ServiceDescriptor]:
        return iter(self.services)

    def __getitem__(self, name: str) -> ServiceDescriptor:
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the services."""
        return tuple(self._by_name)

    def build(self, settings: Settings, *, effects: Effects | None = None) -> "tuple[Service, ...]":
        """Return every service; `effects` replace those that the settings choose."""
        return tuple(service.build(settings, effects=effects) for service in self.services)


system = System(orders, inventory, shipping)
"""The services of the mission."""


def load_system(settings: Settings) -> System:
    """Return the system that the settings name."""
    return system
