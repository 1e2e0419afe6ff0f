"""Tell what an order waits for where nothing is broken, from the evidence: pure functions."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from todoku.cli.causes import BOOKING, Action, Cause, as_stored, first_line, next_attempt, what_of
from todoku.cli.evidence import Evidence, ServiceState
from todoku.cli.formatting import age, counted, day_and_time
from todoku.cli.waiting import WORDS
from todoku.orders.holds import HoldState
from todoku.shipping.carriers import CALL_SECONDS_MAX
from todoku.shipping.domain import BACKOFF_SECONDS_MAX

SOON: Final = timedelta(seconds=20)
"""An order that has waited for less is not late: a message whose decision raises is tried for 15 s before it
is parked with its error."""

LATE_SECONDS: Final = 10.0
"""A delivery or a due row that has waited for longer is late."""

MINUTE: Final = 60
"""In seconds."""

LAG_MIN: Final = 100
"""So many messages before a service explain that it is late."""


def reasons(evidence: Evidence) -> Iterator[Cause]:
    """Yield what the order waits for."""
    yield from as_stored(evidence)
    reason = _REASONS.get(what_of(evidence), _unknown)
    yield from reason(evidence)


def _manual_action(evidence: Evidence) -> Iterator[Cause]:
    for parked in evidence.order.parked:
        letter = (
            evidence.letter if evidence.letter and evidence.letter.id == parked.letter_id else None
        )
        error = (letter and letter.error) or parked.error
        group = letter.group if letter else None
        retry = Action(
            f"todoku dead retry {parked.letter_id} --service {parked.service}",
            "once the cause is gone",
        )
        retry_all = Action(f"todoku dead retry --group {group}", "all with the same error")
        yield Cause(
            code="dead-letter",
            text=f"{parked.service} could not handle {parked.event_type or 'a message'} and has parked it,"
            f" with the order: {first_line(error)}",
            fix="Remove the cause, then retry the message; the order goes on from there.",
            actions=(
                Action(
                    f"todoku dead show {parked.letter_id} --service {parked.service}",
                    "see the message and the traceback",
                ),
                retry,
                *((retry_all,) if group else ()),
            ),
        )


def _carrier(evidence: Evidence) -> Iterator[Cause]:
    waiting, shipment = evidence.order.waiting_for, evidence.shipment
    watch = Action(f"todoku order watch {evidence.order.id}", "see the answer when it comes")
    show = Action(f"todoku shipment show {shipment.id}", "see the next call") if shipment else watch
    error = (shipment and shipment.last_error) or (waiting and waiting.last_error)
    attempts = (shipment.attempts if shipment else waiting and waiting.attempts) or 0
    next_at = next_attempt(evidence)
    if error:
        when = f" The next call is due {_at(next_at, evidence.now)}." if next_at else ""
        yield Cause(
            code="carrier-fails",
            text=f"The carrier has not booked the parcel: {counted(attempts, 'call')} failed, the last one"
            f" with: {first_line(error)}.{when}",
            fix="Check that the carrier is reachable, and its credentials. Calls are repeated by themselves,"
            f" with the same key, at most {_limit(evidence, 'pause', BACKOFF_SECONDS_MAX)} apart.",
            actions=(show,),
        )
    elif shipment is None:
        yield from _late_service(evidence, "shipping", "open the shipment")
    elif shipment.status == BOOKING:
        yield Cause(
            code="carrier-slow",
            text=f"The carrier is being called since {day_and_time(shipment.updated_at)}"
            f" ({age(shipment.updated_at, evidence.now)} ago) and has not answered.{_call_seconds(evidence)}",
            fix=f"A call is given up after {_limit(evidence, 'call', CALL_SECONDS_MAX)} and repeated with the"
            " same key. If calls stay slow, ask the carrier.",
            actions=(watch, show),
        )
    elif next_at is not None and next_at > evidence.now:
        yield Cause(
            code="carrier-not-due",
            text=f"The carrier is called {_at(next_at, evidence.now)}, as `carrier_delay_seconds` says.",
            fix="Nothing is wrong.",
            actions=(watch,),
        )
    else:
        yield from _calls_are_late(evidence, watch)


def _calls_are_late(evidence: Evidence, watch: Action) -> Iterator[Cause]:
    shipping = evidence.services.get("shipping", ServiceState())
    running = int(shipping.metric("effects_running"))
    if running == 0:
        yield Cause(
            code="carrier-due",
            text="The carrier is to be called now.",
            fix="Nothing is wrong so far.",
            actions=(watch,),
        )
        return
    yield Cause(
        code="carrier-queue",
        text=f"The call to the carrier is due, and others are before it: {counted(running, 'call')}"
        f" run now.{_call_seconds(evidence)}",
        fix="It is called when they have ended. If calls are slow, ask the carrier.",
        actions=(watch,),
    )


def _call_seconds(evidence: Evidence) -> str:
    """Return how long calls take on average, as a sentence; nothing if it is unknown."""
    shipping = evidence.services.get("shipping", ServiceState())
    calls = shipping.metric("carrier_call_duration_seconds_count")
    if not calls:
        return ""
    seconds = shipping.metric("carrier_call_duration_seconds_sum") / calls
    return f" Calls that have ended since shipping was started took {seconds:,.1f} s on average."


def _limit(evidence: Evidence, name: str, usual_seconds: float) -> str:
    """Return a limit of the running shipping service; if it does not tell, the one of this version."""
    shipping = evidence.services.get("shipping", ServiceState())
    seconds = shipping.metric(f"carrier_{name}_limit_seconds") or usual_seconds
    return f"{seconds:g} s" if seconds < MINUTE else f"{seconds / MINUTE:g} minutes"


def _stock(evidence: Evidence) -> Iterator[Cause]:
    yield from _late_service(evidence, "inventory", "reserve the stock")


def _restock(evidence: Evidence) -> Iterator[Cause]:
    products = " ".join(item.product_id for item in evidence.order.items)
    first = evidence.order.items[0].product_id
    yield Cause(
        code="out-of-stock",
        text=f"There is not enough stock of what was ordered ({products}), and the order waits for it"
        f" (`onShortage` is wait){_until_deadline(evidence)}.",
        fix="Add stock, or cancel the order.",
        actions=(
            Action(f"todoku product show {first}", "see the stock"),
            Action(f"todoku product restock {first} QUANTITY", "add stock"),
            Action(f"todoku order cancel {evidence.order.id}", "give it up"),
        ),
    )


def _release(evidence: Evidence) -> Iterator[Cause]:
    order = evidence.order
    for hold in order.holds:
        if hold.state in (HoldState.REQUESTED, HoldState.CONFIRMED):
            until = f" until {day_and_time(hold.expires_at)}" if hold.expires_at else ""
            yield Cause(
                code="held",
                text=f"{hold.holder} holds it since {day_and_time(hold.requested_at)}{until}: {hold.reason}",
                fix="The carrier is called when all holds are released.",
                actions=(Action(f"todoku order release {order.id} {hold.id}", "release it"),),
            )


def _cancellation(evidence: Evidence) -> Iterator[Cause]:
    yield from _late_service(evidence, "shipping", "decide about the cancellation")


def _unknown(evidence: Evidence) -> Iterator[Cause]:
    what = what_of(evidence)
    yield Cause(
        code="waits",
        text=f"It waits for {WORDS.get(what, what or 'what this version does not know')}.",
        actions=(Action(f"todoku order watch {evidence.order.id}", "watch it"),),
    )


_REASONS: Final[Mapping[str, Callable[[Evidence], Iterator[Cause]]]] = {
    "manualAction": _manual_action,
    "carrier": _carrier,
    "stock": _stock,
    "restock": _restock,
    "release": _release,
    "cancellation": _cancellation,
}


def _late_service(evidence: Evidence, service: str, to_do: str) -> Iterator[Cause]:
    """Explain an order that waits for a service which works, as far as is known."""
    waiting = evidence.order.waiting_for
    watch = Action(f"todoku order watch {evidence.order.id}", "watch it")
    lag = int(evidence.services.get(service, ServiceState()).metric("stream_lag_messages"))
    if lag >= LAG_MIN:
        yield Cause(
            code="lag",
            text=f"{service} is to {to_do}, and up to {counted(lag, 'message')} are before it.",
            fix="It catches up by itself; if the number grows, the service is too slow for the load.",
            actions=(watch,),
        )
        return
    if waiting is not None and evidence.now - waiting.since < SOON:
        yield Cause(
            code="in-progress",
            text=f"{service} is to {to_do}; the order has waited for {age(waiting.since, evidence.now)}.",
            fix="Nothing is wrong so far.",
            actions=(watch,),
        )
        return
    pending = _pending(evidence, service)
    yield Cause(
        code="late",
        text=f"{service} is to {to_do}, and has not done so.{pending}",
        fix="See whether an event was lost; `--repair` sends again what is missing.",
        actions=(
            Action("todoku verify", "check the databases"),
            Action("todoku verify --repair", "send again what is missing"),
        ),
    )


def _pending(evidence: Evidence, service: str) -> str:
    """Return for how long events have waited for a service, as a sentence; nothing if they do not."""
    label = f'outbox_oldest_pending_seconds{{subscriber="{service}"}}'
    seconds = max((state.metric(label) for state in evidence.services.values()), default=0.0)
    if seconds < LATE_SECONDS:
        return ""
    return f" The oldest event that it has not confirmed is {seconds:,.0f} s old."


def _until_deadline(evidence: Evidence) -> str:
    deadline = evidence.order.deadline
    return f", until {day_and_time(deadline)} at most" if deadline else ""


def _at(instant: datetime, now: datetime) -> str:
    """Return an instant and how far ahead it is."""
    if instant <= now:
        return "now"
    return f"{day_and_time(instant)} (in {age(now, instant)})"
