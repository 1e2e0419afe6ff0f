"""Describe the inventory service."""

from todoku.descriptor import ServiceDescriptor
from todoku.inventory.settings import InventorySettings

inventory = ServiceDescriptor(
    name="inventory",
    package="todoku.inventory",
    service="todoku.inventory.service:inventory_service",
    api="todoku.inventory.http:inventory_api",
    on_start="todoku.inventory.catalogue:seed",
    settings=InventorySettings,
    local_defaults={"demo_catalogue": True},
    default_port=8081,
    examples="todoku.contracts.examples:EXAMPLES",
    narration="todoku.inventory.narration:NARRATION",
    colour="yellow",
    audit="todoku.inventory.audit:inventory_audit",
    simulation="todoku.inventory.simulation:SimulatedInventory",
)
