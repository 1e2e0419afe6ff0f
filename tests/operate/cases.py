"""What `todoku order why` and `todoku doctor` have to say of each case that is planted."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from operate.planted import (
    EXTERNAL_BROKER,
    PLAIN,
    POSTGRESQL,
    SMALL_DISK,
    Planted,
    System,
    broker_flipped,
    broker_rolled_back,
    broker_wiped,
    bug,
    carrier_paused,
    database_deleted,
    database_locked,
    database_lost,
    disk_full,
    durable_deleted,
    external_broker_down,
    frozen,
    gone,
    killed,
    nothing,
    raising,
    server_down,
    slow,
    sold_out,
    stream_deleted,
    stream_purged,
    up_killed,
    wait_for_stock,
)


class Case(NamedTuple):
    """Something that goes wrong: `planted` breaks it, and at its end repairs what is repaired outside.

    `why` is what `todoku order why` has to say of an order, `doctor` what `todoku doctor` has to say by
    check; of nothing else may it complain. `cure` is the command that cures it, as one of the two prints it;
    without one it heals by itself, or once it is repaired outside, as `remedy` says. The order is placed by
    `place` after the fault, or before it and held; what `passes` is seen by a new order only.
    """

    name: str
    planted: Callable[[System], Planted]
    why: tuple[str, ...]
    doctor: Mapping[str, str] = {}
    cure: str = ""
    remedy: str = "nothing: it heals by itself"
    place: Callable[[System], str] = System.place
    is_held: bool = False
    passes: bool = False
    system: str = PLAIN


NOT_LISTENING: Final = r"nothing listens at http://127.0.0.1:\d+, and `todoku up` is stopped"
RELEASE: Final = r"todoku order release \S+ \S+"
CONTINUE: Final = r"kill -CONT \d+"
ENDED: Final = (r"It has ended \(COMPLETED\)",)
BROKER_GONE: Final = r"no NATS server answers at nats://127.0.0.1:\d+, and `todoku up` is stopped"

CASES: Final = (
    Case(
        "dead letter",
        bug,
        (r"has parked it, with the order: ZeroDivisionError: float division by zero",),
        {"shipping database": r"1 message parked: ZeroDivisionError"},
        cure=r"todoku dead retry \S+ --service shipping",
    ),
    Case(
        "carrier raises",
        raising,
        (r"\d calls? failed, the last one with: KeyError: 'token'",),
        {"carrier": r"without an answer after several calls: KeyError: 'token'"},
        remedy="outside: the carrier's credentials",
    ),
    Case(
        "carrier slow",
        slow,
        (r"The carrier is being called since .+ and has not answered",),
        {"carrier": r"it is slow: .+ has not answered one call for [4-9] s"},
        remedy="outside: ask the carrier",
        passes=True,
    ),
    *(
        Case(
            f"{name} frozen",
            frozen(name),
            (rf"{name} does not respond \(process \d+ is stopped\)",),
            {f"{name} port": rf"{name} does not respond \(process \d+ is stopped\)"},
            cure=CONTINUE,
            is_held=name == "orders",
        )
        for name in ("inventory", "shipping", "orders")
    ),
    Case(
        "broker frozen",
        frozen("broker"),
        (r"the broker does not respond \(process \d+ is stopped\)",),
        {"broker port": r"the broker does not respond \(process \d+ is stopped\)"},
        cure=CONTINUE,
    ),
    Case("service killed", killed("shipping"), ENDED),
    Case("embedded broker killed", killed("broker"), ENDED),
    Case(
        "service not restarted",
        gone("shipping"),
        (NOT_LISTENING,),
        {"shipping port": NOT_LISTENING},
        cure=CONTINUE,
    ),
    Case(
        "broker not restarted",
        gone("broker"),
        (BROKER_GONE,),
        {"broker": BROKER_GONE},
        cure=CONTINUE,
    ),
    Case(
        "`todoku up` killed",
        up_killed,
        (r"Start it with `todoku up`", r"This is what the orders database has"),
        {"services": r"none answers"},
        remedy="`todoku up`",
        is_held=True,
    ),
    Case("broker's files deleted", broker_wiped, ENDED),
    Case("broker's bytes flipped", broker_flipped, ENDED),
    Case("broker rolled back", broker_rolled_back, ENDED),
    Case("stream deleted", stream_deleted, ENDED),
    Case("durable consumer deleted", durable_deleted, ENDED),
    Case("database deleted", database_deleted, ENDED),
    Case("stream purged", stream_purged, ENDED),
    Case(
        "database and stream lost",
        database_lost,
        (r"1 dead letter tells what it lacks",),
        {"shipping database": r"the service decides nothing: 1 dead letter to resolve"},
        cure=r"todoku dead retry --all --service shipping",
    ),
    Case(
        "database locked",
        database_locked,
        (r"not ready: The database accepts no writes", r"has locked .+shipping.db"),
        {"shipping port": r"not ready: The database accepts no writes at present"},
        remedy="outside: the program that it names",
    ),
    Case(
        "out of stock",
        sold_out,
        (r"There is not enough stock of what was ordered \(scarce\)",),
        cure=r"todoku product restock scarce QUANTITY",
        place=wait_for_stock,
    ),
    Case(
        "pause forgotten",
        carrier_paused,
        (r"carrier is paused since .+ by bob: Stocktaking until 18:00\. Nothing",),
        {"pauses": r"carrier is paused since .+ by bob"},
        cure=r"todoku resume carrier",
    ),
    Case(
        "hold forgotten",
        nothing,
        (r"fraud-review holds it since .+: A new card",),
        cure=RELEASE,
        is_held=True,
    ),
    Case(
        "disk full",
        disk_full,
        (r"The disk of .+ is full: 0 MiB are free",),
        {"disk space": r"0\.0 GiB free", "disk sync": r"No space left on device"},
        remedy="outside: free some space",
        is_held=True,
        system=SMALL_DISK,
    ),
    Case(
        "external broker down",
        external_broker_down,
        (r"no NATS server answers at nats://127.0.0.1:\d+",),
        {"broker": r"no NATS server answers at nats://127.0.0.1:\d+"},
        remedy="outside: start it",
        system=EXTERNAL_BROKER,
    ),
    Case(
        "PostgreSQL down",
        server_down,
        (
            r"the orders service does not work: it is not ready",
            r"start its database.+Connection refused",
        ),
        {
            **{f"{name} port": r"is not ready: " for name in ("orders", "inventory", "shipping")},
            **{
                f"{name} database": r"cannot be read"
                for name in ("orders", "inventory", "shipping")
            },
        },
        remedy="outside: start it",
        is_held=True,
        system=POSTGRESQL,
    ),
)
"""Those of one system follow each other."""
