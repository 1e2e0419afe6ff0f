"""Plant faults in a running system, and find and cure each with the console only, in a browser.

make operate
make operate ARGS="'stock used up' 'pause forgotten' --pictures DIR"
"""

import os
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from alerts.run import small_disk
from browser.driving import CHROMIUM, INSTALL, ConsoleStack, chromium, tab
from operate.carrier import ACCEPTS, VARIABLE
from operate.faults import DISK, FAULTS, Fault, Night
from operate.operator import PATIENCE_SECONDS, Operator
from operate.planted import PLENTY
from repeating import repeating
from todoku.lab.stack import free_ports, isolated_settings
from todoku.settings import CONSOLE, Span, to_environment

ORDERS_A_SECOND: Final = 2.0
HEADINGS: Final = (
    "fault",
    "seconds until shown",
    "what the overview said",
    "page that it led to",
    "cure",
    "clicks",
    "seconds until cured",
)


class Result(NamedTuple):
    """What came of one fault; the seconds are those of the wait, from the fault and from the cure."""

    fault: str
    shown_seconds: float
    said: str
    page: str
    cure: str
    clicks: int
    cured_seconds: float

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        return [
            self.fault,
            f"{self.shown_seconds:.0f}",
            self.said,
            self.page,
            self.cure,
            str(self.clicks),
            f"{self.cured_seconds:.0f}",
        ]


def main() -> int:
    """Plant the faults one after the other, and print a table. Fails at the first that the console does not
    show, or that does not go away."""
    names = [fault.name for fault in FAULTS]
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("faults", nargs="*", metavar="fault", help=", ".join(names))
    options.add_argument("--pictures", type=Path, help="a folder for a picture of each fault")
    given = options.parse_args()
    if unknown := set(given.faults).difference(names):
        options.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if CHROMIUM is None:
        sys.exit(INSTALL)
    chosen = [fault for fault in FAULTS if not given.faults or fault.name in given.faults]
    if os.geteuid() != 0 and any(fault.name == DISK for fault in chosen):
        print(f"{DISK}: skipped, since only root may mount a small disk", file=sys.stderr)
        chosen = [fault for fault in chosen if fault.name != DISK]
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # The small disk has to go.
    print_row(HEADINGS)
    print_row(["---"] * len(HEADINGS))
    with ExitStack() as stack_of:
        night = stack_of.enter_context(started(small=any(fault.name == DISK for fault in chosen)))
        browser = stack_of.enter_context(chromium())
        watched = stack_of.enter_context(tab(browser, night.stack.console_url))
        # Services are killed: whatever the browser says of that is not a fault of the page.
        watched.tolerates = lambda _: True
        operator = Operator(watched.page)
        for fault in chosen:
            print_row(meet(fault, night, operator, given.pictures).cells())
    return 0


def meet(fault: Fault, night: Night, operator: Operator, pictures: Path | None) -> Result:
    """Plant a fault, find it in the console, cure it, and wait until the console says that it is gone."""
    operator.wait_for_calm(fault.problem)
    operator.clicks = 0
    fault.plant(night)
    shown = operator.wait_for_problem(fault.problem)
    entry = operator.problem(fault.problem)
    operator.read(entry, fault.says)
    said = entry.locator("strong").inner_text()
    if pictures is not None:
        operator.page.screenshot(path=pictures / f"{fault.name.replace(' ', '-')}.png")
    page = operator.follow(fault.problem, fault.page_says)
    if fault.cure is not None:
        fault.cure(operator)
    if fault.repair is not None:
        fault.repair(night)
    begun = time.monotonic()
    clicks = operator.clicks if fault.cure is not None else 0
    operator.go_home()
    operator.wait_for_calm(fault.problem)
    wait_for_an_order(night)
    return Result(fault.name, shown, said, page, fault.remedy, clicks, time.monotonic() - begun)


def wait_for_an_order(night: Night) -> None:
    """Wait until a new order ends as it should. Raises `TimeoutError`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            address = f"{night.stack.url('orders')}/orders"
            items = [{"productId": PLENTY, "quantity": 1}]
            answer = httpx.post(
                address,
                json={"userId": "alice", "items": items},
                headers={"Prefer": "wait=10"},
                timeout=15,
                trust_env=False,
            )
            if answer.is_success and answer.json()["status"] == "COMPLETED":
                return
    raise TimeoutError("no new order was completed")


@contextmanager
def started(*, small: bool) -> Iterator[Night]:
    """Run a system with its console and a few orders a second; with `small`, on a disk that can be filled."""
    with ExitStack() as stack_of:
        folder = Path(stack_of.enter_context(tempfile.TemporaryDirectory()))
        data_dir = folder / "data"
        if small:
            stack_of.enter_context(small_disk(data_dir))
        (port,) = free_ports(1)
        settings = isolated_settings(
            data_dir,
            console=True,
            console_port=port,
            demo_catalogue=True,
            carrier="operate.carrier:carrier",
            carrier_delay_seconds=Span(0.2, 0.4),
        )
        night = Night(
            ConsoleStack(
                settings,
                folder / "up.log",
                environment=to_environment(settings)
                | {
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                    VARIABLE: str(folder / "carrier"),
                },
            ),
            folder / "carrier",
            data_dir,
        )
        night.set_carrier(ACCEPTS)
        stack_of.enter_context(night.stack)
        night.stack.start()
        night.stack.until_responds(CONSOLE)
        night.stack.client.add_products({PLENTY: 1_000_000})
        stack_of.enter_context(load(night.stack))
        yield night


@contextmanager
def load(stack: ConsoleStack) -> Iterator[None]:
    """Place orders in a thread, whatever is answered."""
    body = {"userId": "alice", "items": [{"productId": PLENTY, "quantity": 1}]}
    with httpx.Client(base_url=stack.url("orders"), trust_env=False, timeout=5) as http:

        def place() -> None:
            with suppress(httpx.HTTPError):
                http.post("/orders", json=body)

        with repeating(place, every_seconds=1 / ORDERS_A_SECOND):
            yield


def print_row(cells: "list[str] | tuple[str, ...]") -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
