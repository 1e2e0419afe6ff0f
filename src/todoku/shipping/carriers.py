"""Define the carrier protocol, load the configured carrier, and simulate one."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pkgutil import resolve_name
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from todoku.descriptor import Effects
from todoku.engine import SharedTimeout, current_traceparent
from todoku.events import Exemplars
from todoku.settings import Settings, SettingsInvalid
from todoku.shipping.answers import checked_answer, described, unknown_after
from todoku.shipping.domain import (
    BACKOFF_SECONDS_MAX,
    Accepted,
    Answer,
    BookParcel,
    Parcel,
    RecordAnswer,
    Rejected,
    Unknown,
)
from todoku.shipping.settings import ShippingSettings

log = structlog.get_logger(__name__)

CALL_SECONDS_MAX = 9.0
"""How long a call may take before its outcome is unknown; less than the engine gives to an effect."""

CALLS: Final = Counter(
    "todoku_carrier_calls", "Calls to the carrier, by answer.", ["answer"], registry=None
)
_CALLS_BY_ANSWER: Final = {
    kind: CALLS.labels(kind.__name__.lower()) for kind in (Accepted, Rejected, Unknown)
}
CALL_BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, CALL_SECONDS_MAX)
CALL_DURATIONS: Final = Histogram(
    "todoku_carrier_call_duration_seconds",
    "Duration of calls to the carrier, whatever it answers, also of those that were given up.",
    buckets=CALL_BUCKETS_SECONDS,
    registry=None,
)
CALL_EXEMPLARS: Final = Exemplars(CALL_BUCKETS_SECONDS)
CALL_LIMIT: Final = Gauge(
    "todoku_carrier_call_limit_seconds",
    "After so long a call to the carrier is given up, and repeated with the same key.",
    registry=None,
)
CALL_LIMIT.set(CALL_SECONDS_MAX)
PAUSE_LIMIT: Final = Gauge(
    "todoku_carrier_pause_limit_seconds",
    "The longest pause before a call to the carrier is repeated.",
    registry=None,
)
PAUSE_LIMIT.set(BACKOFF_SECONDS_MAX)
COLLECTORS: Final = (CALLS, CALL_DURATIONS, CALL_LIMIT, PAUSE_LIMIT)
"""The metrics of the shipping service."""


class Carrier(Protocol):
    """A service that ships parcels.

    `book` may be called several times with the same `key`, also from several processes and after a
    crash: the same key must mean the same parcel and get the same answer. An exception counts as
    `Unknown`: the call is repeated later. So does an answer that is none of the three, one whose text is
    empty or no text, and no answer within `CALL_SECONDS_MAX`. A tracking number is cut to 200 characters, a
    reason to 500.
    """

    async def book(self, key: str, parcel: Parcel) -> Answer:
        """Ask the carrier to ship a parcel."""


def load_carrier(settings: Settings) -> Carrier:
    """Return the carrier that the factory named by the setting `carrier` makes from the settings.

    Raises `SettingsInvalid` if there is no such factory, or if what it makes cannot book; and whatever the
    factory raises, which the next start may not.
    """
    name = settings.own(ShippingSettings).carrier
    try:
        factory = resolve_name(str(name))
    except Exception as error:  # Importing a package runs whatever is in it.
        raise SettingsInvalid(
            [
                f"carrier names {name!r}, which cannot be imported: {described(error)}."
                " Install that package in this environment, or put its folder on PYTHONPATH."
            ]
        ) from error
    if not callable(factory):
        raise SettingsInvalid(
            [
                f"carrier names {name!r}, which cannot be called: name a function that makes a carrier."
            ]
        )
    carrier: Carrier = factory(settings)
    if not callable(getattr(carrier, "book", None)):
        raise SettingsInvalid(
            [
                f"carrier names {name!r}, which returned {type(carrier).__name__}, an object without"
                " `async def book(key, parcel)`: return a carrier."
            ]
        )
    return carrier


def carrier_effects(settings: Settings) -> Effects:
    """Return what books parcels: the carrier that is set, else the simulated one."""
    own = settings.own(ShippingSettings)
    if own.carrier:
        return booking_effects(load_carrier(settings))
    return booking_effects(
        SimulatedCarrier(success_rate=own.carrier_success_rate, seed=own.carrier_seed)
    )


def booking_effects(carrier: Carrier) -> Effects:
    """Return what books parcels with `carrier`."""
    return {BookParcel: partial(book_parcel, carrier, SharedTimeout(CALL_SECONDS_MAX))}


async def book_parcel(
    carrier: Carrier, time_limit: SharedTimeout, booking: BookParcel
) -> RecordAnswer:
    """Call the carrier, and check what it answers. An exception means that the outcome is unknown."""
    began = time.perf_counter()
    answer = await _answer(carrier, time_limit, booking)
    seconds = time.perf_counter() - began
    CALL_DURATIONS.observe(seconds, CALL_EXEMPLARS.of(current_traceparent(), seconds))
    _CALLS_BY_ANSWER[type(answer)].inc()
    if isinstance(answer, Unknown):
        log.warning(
            "carrier_call_failed",
            order_id=booking.order_id,
            shipment_id=booking.shipment_id,
            attempt=booking.attempt,
            error=answer.reason,
        )
    return RecordAnswer(order_id=booking.order_id, answer=answer)


async def _answer(carrier: Carrier, time_limit: SharedTimeout, booking: BookParcel) -> Answer:
    try:
        answer = await time_limit.wait_for(carrier.book(booking.shipment_id, booking.parcel))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # The process stops: the claim falls due again.
        return unknown_after(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # Whatever a plug-in raises, SystemExit too, the service lives.
        return unknown_after(error)
    return checked_answer(answer)


class SimulatedCarrier:
    """Simulate a carrier whose answer depends on the key and a seed only.

    `success_rate` is the share of parcels that it accepts, 0 to 1.
    """

    def __init__(self, *, success_rate: float = 0.9, seed: int = 0) -> None:
        self._success_rate = success_rate
        self._seed = seed

    async def book(self, key: str, parcel: Parcel) -> Answer:
        if fraction(f"{self._seed}:outcome:{key}") < self._success_rate:
            return Accepted(f"SIM-{key[-12:].upper()}")
        return Rejected("The simulated carrier had no room for this parcel.")


def pickup_delays(settings: Settings) -> Callable[[str], timedelta]:
    """Return how long a shipment waits before the carrier is called, by the shipment's id."""
    own = settings.own(ShippingSettings)
    delay, seed = own.carrier_delay_seconds, own.carrier_seed
    return lambda shipment_id: pickup_delay(shipment_id, delay.low, delay.high, seed)


def pickup_delay(shipment_id: str, low_seconds: float, high_seconds: float, seed: int) -> timedelta:
    """Return the delay before the carrier is called: within the bounds, the same for each shipment id."""
    share = fraction(f"{seed}:delay:{shipment_id}")
    return timedelta(seconds=low_seconds + share * (high_seconds - low_seconds))


def fraction(text: str) -> float:
    """Return a pseudo-random number from 0 to below 1 that depends on the text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48
