"""Tell why an order waits and what can be done, from the evidence: pure functions.

What is broken comes first, in the sequence in which it stops an order: the services that the order waits for,
their database and disk, the broker, a recovery, pauses. If nothing is, the order waits for what it is about:
the carrier, stock, a hold, a person.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from todoku.cli.checks.network import CLOCK_SECONDS_MAX
from todoku.cli.evidence import Evidence, ServiceState
from todoku.cli.formatting import age, counted, day_and_time
from todoku.cli.responses import Waiting
from todoku.cli.waiting import WORDS
from todoku.orders.domain import OrderStatus
from todoku.orders.holds import HoldState
from todoku.shipping.domain import ShipmentStatus

ENDED: Final = frozenset(status.value for status in OrderStatus if status.terminal)

CONCERNED: Final[Mapping[str, tuple[str, ...]]] = {
    "stock": ("orders", "inventory"),
    "restock": ("orders", "inventory"),
    "carrier": ("orders", "shipping"),
    "release": ("orders", "shipping"),
    "cancellation": ("orders", "shipping", "inventory"),
}
"""The services whose work an order waits for, by what it waits for; of all else, every service."""

UNDER_WAY: Final = frozenset(
    {"in-progress", "late", "lag", "carrier-due", "carrier-queue", "carrier-not-due", "waits"}
)
"""What an order waits for without a fault of its own: not worth a word where something is broken."""

BOOKING: Final = ShipmentStatus.BOOKING.value

SPARE_BYTES: Final = 100 * 2**20
"""With less free space, a disk counts as full."""

SOON: Final = timedelta(seconds=5)
"""An order that has waited for less is not late."""

LATE_SECONDS: Final = 10.0
"""A delivery or a due row that has waited for longer is late."""

LAG_MIN: Final = 100
"""So many messages before a service explain that it is late."""


class Action(msgspec.Struct, frozen=True):
    """A command to type, and what for."""

    command: str
    purpose: str


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps the order waiting: a `code` for programs, a sentence, and what can be done."""

    code: str
    text: str
    fix: str = ""
    actions: tuple[Action, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an order waits for and why: the first of the `causes` is the one to look at first."""

    order_id: str
    status: str
    waits_for: str | None = None
    since: datetime | None = None
    attempts: int | None = None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    deadline: datetime | None = None
    causes: tuple[Cause, ...] = ()


def explain(evidence: Evidence) -> Explanation:
    """Return why the order waits."""
    order, shipment = evidence.order, evidence.shipment
    if order.status in ENDED:
        reason = f": {order.reason}" if order.reason else ""
        text = f"It has ended ({order.status}){reason}. It waits for nothing."
        # It waits for nothing, but who asks should know that the service does not work.
        asides = (*_as_stored(evidence), *_services(evidence)) if evidence.from_database else ()
        causes = (Cause(code="ended", text=text), *asides)
        return Explanation(order_id=order.id, status=order.status, causes=causes)
    waiting = order.waiting_for or Waiting(what="", since=order.updated_at)
    attempts, error = waiting.attempts, waiting.last_error
    if shipment is not None and shipment.last_error:
        # Shipping tells how the last call ended at once, orders at most a minute later.
        attempts, error = shipment.attempts, shipment.last_error
    if evidence.letter is not None:
        attempts, error = evidence.letter.attempts, evidence.letter.error
    return Explanation(
        order_id=order.id,
        status=order.status,
        waits_for=waiting.what or None,
        since=waiting.since,
        attempts=attempts,
        last_error=error,
        next_attempt_at=_next_attempt(evidence),
        deadline=order.deadline,
        causes=_causes(evidence),
    )


def _causes(evidence: Evidence) -> tuple[Cause, ...]:
    """Return what is broken, and what the order waits for, unless that only says that it is under way."""
    faults, reasons = tuple(_faults(evidence)), tuple(_reasons(evidence))
    if not faults:
        return reasons
    return (*faults, *(reason for reason in reasons if reason.code not in UNDER_WAY))


def _next_attempt(evidence: Evidence) -> datetime | None:
    """Return when the carrier is called next, if that is known and still to come."""
    waiting, shipment = evidence.order.waiting_for, evidence.shipment
    if waiting is None or waiting.what != "carrier":
        return None
    if shipment is None:
        next_at = waiting.next_attempt_at
    else:
        # While a call is under way, it is when the call would be repeated after a crash.
        called = shipment.status == BOOKING and not shipment.last_error
        next_at = None if called else shipment.next_attempt_at
    return next_at if next_at is not None and next_at > evidence.now else None


def _what(evidence: Evidence) -> str:
    waiting = evidence.order.waiting_for
    return waiting.what if waiting else ""


def _concerned(evidence: Evidence) -> Iterator[tuple[str, ServiceState]]:
    names = CONCERNED.get(_what(evidence), tuple(evidence.services))
    for name in names:
        if name in evidence.services:
            yield name, evidence.services[name]


# What is broken.


def _faults(evidence: Evidence) -> Iterator[Cause]:
    for fault in (_disk, _services, _broker, _recoveries, _pauses, _clocks, _configuration):
        yield from fault(evidence)


def _disk(evidence: Evidence) -> Iterator[Cause]:
    free = {
        name: state.metrics.get("todoku_disk_free_bytes") for name, state in _concerned(evidence)
    }
    full = [name for name, found in free.items() if found is not None and found < SPARE_BYTES]
    here = evidence.free_bytes is not None and evidence.free_bytes < SPARE_BYTES
    if not full and not here:
        return
    where = f"of {' and '.join(full)}" if full else "with the data folder"
    spare = min(
        (found for found in free.values() if found is not None), default=evidence.free_bytes
    )
    yield Cause(
        code="disk-full",
        text=f"The disk {where} is full: {(spare or 0) / 2**20:,.0f} MiB are free. Nothing is lost: what"
        " could not be saved is kept and retried.",
        fix="Free some space; the services go on by themselves.",
        actions=(Action("todoku doctor", "see the disk and the data folder"),),
    )


def _services(evidence: Evidence) -> Iterator[Cause]:
    for name, state in _concerned(evidence):
        if state.wrong:
            yield Cause(
                code="service-not-ready" if state.answers else "service-does-not-answer",
                text=f"The {name} service does not work: {state.wrong}.",
                fix=_sentence(state.fix),
                actions=(Action("todoku doctor", "check everything on this machine"),),
            )


def _broker(evidence: Evidence) -> Iterator[Cause]:
    found = evidence.broker
    cut_off = [
        name
        for name, state in _concerned(evidence)
        if state.metrics.get("todoku_broker_connected", 1.0) == 0.0
    ]
    if found is not None:
        fix = _sentence(found.fix)
        if evidence.supervised is not None and "todoku up" in found.fix:
            fix = (
                f"`todoku up` (process {evidence.supervised}) restarts it by itself; if it does not,"
                " see what that prints."
            )
        yield Cause(
            code="broker",
            text=f"The broker does not work: {found.found}. Orders are accepted all the same, and their"
            " events are kept until it does.",
            fix=fix,
            actions=(Action("todoku doctor", "check the broker again"),),
        )
    elif cut_off:
        yield Cause(
            code="broker-not-connected",
            text=f"The broker answers here, but not {' and '.join(cut_off)}.",
            fix="Check the network between them, and `nats_url` of that service.",
        )


def _recoveries(evidence: Evidence) -> Iterator[Cause]:
    for name, state in _concerned(evidence):
        letters = int(state.metric("recovery_dead_letters"))
        if letters:
            yield Cause(
                code="recovery-waits",
                text=f"The {name} service decides nothing: its database was restored or lost, and"
                f" {counted(letters, 'dead letter')} tell what it lacks.",
                fix="Enter again what is missing, then retry them.",
                actions=(
                    Action(f"todoku dead list --service {name}", "see what is missing"),
                    Action(f"todoku dead retry --all --service {name}", "go on"),
                ),
            )
        elif state.metric("recovering"):
            yield Cause(
                code="recovering",
                text=f"The {name} service is not sure yet that its database is complete: it reads the stream."
                " Until then it calls nobody.",
                fix="Wait; if the broker is away, it goes on when that is back.",
            )


def _pauses(evidence: Evidence) -> Iterator[Cause]:
    concerned = {name for name, _ in _concerned(evidence)}
    for pause in evidence.pauses:
        if pause.service in concerned:
            yield Cause(
                code="paused",
                text=f"{pause.text}. Nothing of it starts.",
                fix="Resume it when the reason is gone.",
                actions=(Action(f"todoku resume {pause.what}", "let it go on"),),
            )


def _clocks(evidence: Evidence) -> Iterator[Cause]:
    for name, state in _concerned(evidence):
        if state.ahead_seconds is not None and abs(state.ahead_seconds) > CLOCK_SECONDS_MAX:
            yield Cause(
                code="clock",
                text=f"The clock of the {name} service differs by {state.ahead_seconds:+,.0f} s from this"
                " machine's: what is due is due by its clock.",
                fix="Synchronise both with a time service (chrony, systemd-timesyncd).",
            )


def _configuration(evidence: Evidence) -> Iterator[Cause]:
    if any(state.metric("broker_configuration_problems") for _, state in _concerned(evidence)):
        yield Cause(
            code="broker-configuration",
            text="The stream, or a durable consumer, is misconfigured in a way that cannot be corrected.",
            fix="See what it is.",
            actions=(Action("todoku doctor", "see which field, and what to do"),),
        )


# What it waits for.


def _reasons(evidence: Evidence) -> Iterator[Cause]:
    yield from _as_stored(evidence)
    reason = _REASONS.get(_what(evidence), _unknown)
    yield from reason(evidence)


def _as_stored(evidence: Evidence) -> Iterator[Cause]:
    if evidence.from_database:
        yield Cause(
            code="as-stored",
            text="This is what the orders database has: the service itself did not answer.",
        )


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
            f" with the order: {_first_line(error)}",
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
    next_at = _next_attempt(evidence)
    if error:
        when = f" The next call is due {_at(next_at, evidence.now)}." if next_at else ""
        yield Cause(
            code="carrier-fails",
            text=f"The carrier has not booked the parcel: {counted(attempts, 'call')} failed, the last one"
            f" with: {_first_line(error)}.{when}",
            fix="Check that the carrier is reachable, and its credentials. Calls are repeated by themselves,"
            " with the same key, at most 5 minutes apart.",
            actions=(show,),
        )
    elif shipment is None:
        yield from _late_service(evidence, "shipping", "open the shipment")
    elif shipment.status == BOOKING:
        yield Cause(
            code="carrier-slow",
            text=f"The carrier is being called since {day_and_time(shipment.updated_at)}"
            f" ({age(shipment.updated_at, evidence.now)} ago) and has not answered.{_call_seconds(evidence)}",
            fix="A call is given up after 9 s and repeated with the same key. If calls stay slow, ask the"
            " carrier.",
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
    return f" Calls take {seconds:,.1f} s on average since shipping was started."


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
    what = _what(evidence)
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


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(".") if text else "an unknown error"


def _sentence(text: str) -> str:
    """Return a fix as a sentence."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""
