"""Describe the inventory service."""

from todoku.descriptor import ServiceDescriptor

inventory = ServiceDescriptor(
    name="inventory",
    package="todoku.inventory",
    service="todoku.inventory.service:inventory_service",
    api="todoku.inventory.http:inventory_api",
    on_start="todoku.inventory.catalogue:seed",
)
