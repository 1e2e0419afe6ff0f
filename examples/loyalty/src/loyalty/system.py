"""The services of Todoku and this one: `TODOKU_SYSTEM=loyalty.system:system`."""

from todoku import system as todoku
from todoku.descriptor import ServiceDescriptor

loyalty = ServiceDescriptor(
    name="loyalty",
    package="loyalty",
    service="loyalty.service:loyalty_service",
    api="loyalty.http:loyalty_api",
)
system = todoku.System(*todoku.system.services, loyalty)
