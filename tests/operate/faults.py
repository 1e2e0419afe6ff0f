"""Faults of a night: how each is planted, what the console has to say about it, and how it is cured."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from playwright.sync_api import expect

from browser.driving import ConsoleStack
from faults import disks
from operate.carrier import ACCEPTS, IS_SLOW, RAISES
from operate.operator import Operator
from operate.planted import PAUSE, PLENTY, SCARCE, kill_for_good

SINCE: Final = r"since \d\d/\d\d/\d{4}, \d\d:\d\d:\d\d \(.+\)"


class Night(NamedTuple):
    """A running system, the file that tells its carrier how to answer, and its data folder."""

    stack: ConsoleStack
    carrier: Path
    data_dir: Path

    def set_carrier(self, behaviour: str) -> None:
        """Change how the carrier answers from now on."""
        self.carrier.write_text(behaviour, encoding="utf-8")


class Fault(NamedTuple):
    """A fault: `problem` is what the overview calls it, `says` what it has to say there, `page_says` what
    the page has to say that it leads to. `cure` is done at that page, in the console, and told as `remedy`;
    without one the system heals itself, or `repair` is done elsewhere."""

    name: str
    plant: Callable[[Night], None]
    problem: str
    says: tuple[str, ...]
    page_says: tuple[str, ...]
    remedy: str
    cure: Callable[[Operator], None] | None = None
    repair: Callable[[Night], None] | None = None


def poison(night: Night) -> None:
    """Publish messages that no service can read."""
    night.stack.publish("orders.created", b"\xff 1", b"\xff 2")


def discard_all(operator: Operator) -> None:
    """Discard the group of messages with the same error."""
    operator.press("Discard all")
    operator.fill(reason="Not an event: test data from another program.")
    operator.confirm(many=True)
    expect(operator.page.get_by_text("No message needs a decision")).to_be_visible()


def make_carrier_raise(night: Night) -> None:
    """Let each call to the carrier fail."""
    night.set_carrier(RAISES)


def make_carrier_slow(night: Night) -> None:
    """Let each call to the carrier take seconds."""
    night.set_carrier(IS_SLOW)


def mend_carrier(night: Night) -> None:
    """Let the carrier accept parcels at once."""
    night.set_carrier(ACCEPTS)


def freeze_inventory(night: Night) -> None:
    """Stop the process of inventory; its connections stay open."""
    night.stack.freeze("inventory")


def freeze_broker(night: Night) -> None:
    """Stop the process of the embedded broker; its connections stay open."""
    night.stack.freeze("broker")


def use_up_stock(night: Night) -> None:
    """Place orders until a product is sold out and some wait for it."""
    night.stack.client.add_products({SCARCE: 1})
    for _ in range(4):
        night.stack.place(SCARCE, onShortage="wait")


def restock(operator: Operator) -> None:
    """Add stock at the page of the product."""
    operator.press("Restock")
    operator.fill(quantity="10")
    operator.confirm()


def pause_carrier(night: Night) -> None:
    """Pause the calls to the carrier."""
    night.stack.request("shipping", "/pauses", PAUSE)


def resume(operator: Operator) -> None:
    """End the pause at the page of pauses."""
    operator.press("Resume")
    operator.fill()
    operator.confirm()


def hold_an_order(night: Night) -> None:
    """Place an order with a hold that nobody releases."""
    night.stack.place(PLENTY, holds=[{"holder": "fraud-review", "reason": "A new card."}])


def release(operator: Operator) -> None:
    """Release the hold at the page of the order."""
    operator.press("Release")
    operator.fill()
    operator.confirm()


def fill_disk(night: Night) -> None:
    """Fill the disk of the databases to the last byte."""
    disks.fill(night.data_dir)


def free_disk(night: Night) -> None:
    """Delete what fills the disk."""
    disks.free(night.data_dir)


def kill_shipping_for_good(night: Night) -> None:
    """Kill shipping, and stop what would start it again."""
    kill_for_good(night.stack, "shipping")


def continue_up(night: Night) -> None:
    """Continue what starts it again."""
    os.kill(night.stack.pids()["up"], signal.SIGCONT)


DISK: Final = "disk full"
"""The fault that needs a small disk of its own, which only root may mount."""

FAULTS: Final = (
    Fault(
        "dead letters",
        poison,
        "letters.errors",
        (
            r"2 messages need a decision at inventory: UndecodableEvent",
            SINCE,
            "retry; edit or discard",
        ),
        (r"UndecodableEvent: not a CloudEvents", r"first .+ ago"),
        "Discard all, with a reason",
        cure=discard_all,
    ),
    Fault(
        "carrier raises",
        make_carrier_raise,
        "carrier",
        (
            r"The carrier has not answered for \d+ shipment",
            SINCE,
            r"KeyError: 'token'",
            "Check that the carrier can be reached, and its credentials",
        ),
        (r"Waits for the carrier", r"failed: KeyError: 'token'", r"next one is due"),
        "outside: the carrier's credentials; calls are repeated by themselves",
        repair=mend_carrier,
    ),
    Fault(
        "carrier slow",
        make_carrier_slow,
        "slow",
        (r"The carrier is slow: a call takes [67](\.\d)? s", SINCE, "Ask the carrier"),
        (r"being called",),
        "outside: nothing can be done here, as it says",
        repair=mend_carrier,
    ),
    Fault(
        "inventory frozen",
        freeze_inventory,
        "down",
        (
            r"inventory does not respond",
            SINCE,
            "its process is stopped, or stuck",
            "restarts it by itself within a minute",
        ),
        (r"inventory takes connections and has not answered",),
        "none: `todoku up` restarts it",
    ),
    Fault(
        "broker frozen",
        freeze_broker,
        "broker",
        (r"is not connected to the broker", SINCE, "restarts its own"),
        (r"Broker",),
        "none: `todoku up` restarts it",
    ),
    Fault(
        "shipping gone",
        kill_shipping_for_good,
        "down",
        (r"shipping does not respond", SINCE, "todoku doctor"),
        (r"shipping cannot be reached",),
        "outside: `todoku doctor` names the process",
        repair=continue_up,
    ),
    Fault(
        "stock used up",
        use_up_stock,
        "short",
        (r"3 orders wait for stock of scarce", SINCE, "Restock"),
        (r"Orders that wait for it",),
        "Restock",
        cure=restock,
    ),
    Fault(
        "pause forgotten",
        pause_carrier,
        "pause",
        (r"carrier \(shipping\) is paused by bob: Stocktaking until 18:00\.", SINCE, "resumes it"),
        (r"Stocktaking until 18:00\.",),
        "Resume",
        cure=resume,
    ),
    Fault(
        "hold forgotten",
        hold_an_order,
        "held.by",
        (r"1 order is held by fraud-review: A new card\.", SINCE, "until the hold is released"),
        (r"Held by fraud-review",),
        "Release",
        cure=release,
    ),
    Fault(
        DISK,
        fill_disk,
        "full",
        (r"The disk of [\w, ]+ is full: \d+ MiB are free", SINCE, "Free some space"),
        (r"Disk free",),
        "outside: free some space; the services go on by themselves",
        repair=free_disk,
    ),
)
