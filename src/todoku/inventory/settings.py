"""Define the settings of the inventory service."""

from typing import Annotated

import msgspec
from msgspec import Meta


class InventorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an empty inventory starts with."""

    demo_catalogue: Annotated[
        bool,
        Meta(description="Fill an empty inventory with the demo products; under `up`, true."),
    ] = False
