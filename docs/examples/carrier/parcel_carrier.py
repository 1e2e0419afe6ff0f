"""A carrier with an HTTP API that honours idempotency keys."""

import os

import httpx

from todoku.settings import Settings
from todoku.shipping.domain import Accepted, Answer, Parcel, Rejected, Unknown

TIMEOUT_SECONDS = 5.0
"""Well below the 20 seconds of a claim, after which the call is repeated."""


class HttpCarrier:
    """Books parcels with `POST {address}/bookings`."""

    def __init__(self, address: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_SECONDS,
        )

    async def book(self, key: str, parcel: Parcel) -> Answer:
        response = await self._client.post(
            "/bookings",
            headers={"Idempotency-Key": key},
            json={
                "reference": parcel.order_id,
                "to": parcel.shipping_address,
                "pieces": sum(item.quantity for item in parcel.items),
            },
        )
        match response.status_code:
            case 200 | 201:
                return Accepted(response.json()["trackingNumber"])
            case 422:
                return Rejected(response.json()["reason"])
            case status:
                return Unknown(f"the carrier answered {status}")


def carrier(settings: Settings) -> HttpCarrier:
    """Return the carrier that the environment describes. Called once, when the shipping service starts."""
    return HttpCarrier(os.environ["PARCEL_CARRIER_URL"], os.environ["PARCEL_CARRIER_TOKEN"])
