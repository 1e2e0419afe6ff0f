"""Define the settings of the shipping service."""

from typing import Annotated

import msgspec
from msgspec import Meta

from todoku.settings import Factory, Span


class ShippingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which carrier ships, and how the simulated one behaves."""

    carrier: Annotated[
        Factory | None,
        Meta(description="A function that makes the carrier; without one, it is simulated."),
    ] = None
    carrier_success_rate: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of parcels that the simulated carrier accepts."),
    ] = 0.9
    carrier_delay_seconds: Annotated[
        Span,
        Meta(
            description="How long a parcel waits before the carrier is called first, in seconds: a "
            "number or a range.",
            extra={"allowed": "a number of seconds, or a range like 1..3"},
        ),
    ] = Span(1, 3)
    carrier_seed: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53 - 1,
            description="Decides, with a shipment's id, how the simulated carrier answers.",
        ),
    ] = 0
