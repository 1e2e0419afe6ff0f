"""Measure the frames of the console while 500 events a second come in: `make frames`.

The services are real, but the stream of orders is made here: the rate is then the same on every machine. A
frame's work is from the first callback of the frame until the browser has drawn it, by the page's own clock.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import threading
import uuid
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from playwright.sync_api import Browser, Page
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from browser.driving import CHROMIUM, INSTALL, ConsoleStack, chromium, console_stack, tab
from browser.loads import measure_loads
from todoku.console.application import application
from todoku.console.forwarding import Forwarder, make_client
from todoku.lab.stack import free_ports
from todoku.web import Limits

EVENTS_A_SECOND: Final = 500
TICKS_A_SECOND: Final = 50
FRAME_MILLISECONDS: Final = 16.0
SECONDS: Final = 12
PAGES: Final = ("", "orders", "events", "saga", "subscribers", "orders/{order}")
LIFE: Final = (
    ("OrderCreatedEvent", "orders", "PENDING"),
    ("StockReservedEvent", "inventory", "PENDING"),
    ("ShipmentInitiatedEvent", "shipping", "AWAITING_SHIPMENT"),
    ("ShipmentCompletedEvent", "shipping", "COMPLETED"),
    ("OrderCompletedEvent", "orders", "COMPLETED"),
)
LIMITS: Final = Limits(body_bytes_max=2**20)

MEASURE: Final = """
window.__frames = [];
{
  const ask = window.requestAnimationFrame.bind(window);
  const drawn = new MessageChannel();
  let began = 0;
  drawn.port1.onmessage = () => window.__frames.push(performance.now() - began);
  const look = () => {
    began = performance.now();
    drawn.port2.postMessage(0);
    ask(look);
  };
  ask(look);
}
"""


async def stream(request: Request) -> Response:
    """Stream the lives of orders, at the rate."""

    async def events() -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        lives = itertools.chain.from_iterable(one_life() for _ in itertools.count())
        while True:
            due = int((loop.time() - began) * EVENTS_A_SECOND)
            yield b"".join(itertools.islice(lives, due - sent))
            sent = due
            await asyncio.sleep(1 / TICKS_A_SECOND)

    return StreamingResponse(events(), media_type="text/event-stream")


def one_life() -> Iterator[bytes]:
    """Yield the events of one order."""
    order_id, cause = str(uuid.uuid4()), None
    for sequence, (kind, source, status) in enumerate(LIFE, 1):
        event_id, now = str(uuid.uuid4()), "2026-01-02T03:04:05.678901Z"
        event = {
            "position": sequence,
            "orderId": order_id,
            "sequence": sequence,
            "id": event_id,
            "type": kind,
            "source": source,
            "actor": None,
            "cause": cause,
            "time": now,
            "recordedAt": now,
            "status": status,
            "data": {"userId": "user123", "items": [{"productId": "prod001", "quantity": 2}]},
        }
        yield f"id: {event_id}\ndata: {json.dumps(event)}\n\n".encode()
        cause = event_id


@contextmanager
def busy_console(stack: ConsoleStack) -> Iterator[str]:
    """Run another console, whose stream is the one that is made here; yield its address."""
    orders_port, port = free_ports(2)
    started = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        async with make_client() as client:
            real = {name: stack.url(name) for name in stack.services}
            orders = Router(
                [Route("/orders/stream", stream)], default=_Behind(Forwarder(real, client, LIMITS))
            )
            page = application(
                real | {"orders": f"http://127.0.0.1:{orders_port}"}, client, limits=LIMITS
            )
            for app, at in ((orders, orders_port), (page, port)):
                config = uvicorn.Config(app, port=at, lifespan="off", log_level="error")
                server = uvicorn.Server(config)
                server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
                servers.append(server)
            running = [asyncio.create_task(server.serve()) for server in servers]
            while not all(server.started for server in servers):  # noqa: ASYNC110 - uvicorn's flag
                await asyncio.sleep(0.01)
            started.set()
            await asyncio.gather(*running)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait(30)
    yield f"http://127.0.0.1:{port}/"
    for server in servers:
        server.should_exit = server.force_exit = True
    thread.join(10)


class _Behind:
    """Sends everything to the real service of orders."""

    def __init__(self, forward: ASGIApp) -> None:
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = "/api/orders" + scope["path"]
        await self._forward({**scope, "path": path, "raw_path": path.encode()}, receive, send)


def measure(browser: Browser, url: str, path: str, seconds: float) -> dict[str, Any]:
    """Return the frames of one page, and how long its main thread computed."""
    with tab(browser, url) as watched:
        page = watched.page
        page.add_init_script(MEASURE)
        page.goto(url + path)
        page.locator("[data-connection=live]").wait_for()
        page.wait_for_timeout(3_000)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = busy_seconds(devtools)
        page.evaluate("window.__frames.length = 0")
        page.wait_for_timeout(seconds * 1_000)
        frames = sorted(page.evaluate("window.__frames"))
        computed = busy_seconds(devtools) - before
        received = events_received(page)
    return {
        "page": path or "overview",
        "frames": len(frames),
        "p50": at(frames, 0.5),
        "p95": at(frames, 0.95),
        "p99": at(frames, 0.99),
        "max": frames[-1],
        "over": sum(frame > FRAME_MILLISECONDS for frame in frames) / len(frames),
        "cpu": computed / seconds,
        "each": computed / len(frames) * 1_000,
        "received": received,
    }


def busy_seconds(devtools: Any) -> float:
    """Return the processor time of all tasks of the page's main thread."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    found = {each["name"]: each["value"] for each in metrics}
    return float(found["TaskDuration"])


def events_received(page: Page) -> int:
    """Return how many events the page has got."""
    script = "import('./static/lib/live.js').then((live) => live.received.value)"
    return int(page.evaluate(script))


def at(values: list[float], quantile: float) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * quantile))]


def last_order(stack: ConsoleStack) -> str:
    """Return the id of the newest order."""
    return str(stack.request("orders", "/orders?limit=1")["items"][0]["id"])


def main() -> int:
    """Measure each page, and print a table; return 1 if the median frame of a page is too long."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("pages", nargs="*", default=PAGES)
    options.add_argument("--seconds", type=float, default=SECONDS)
    options.add_argument(
        "--data", type=Path, help="a data folder, which is written to; its pages are timed as well"
    )
    chosen = options.parse_args()
    if CHROMIUM is None:
        print(INSTALL, file=sys.stderr)
        return 2
    slow = False
    given = {"data_dir": chosen.data.absolute(), "demo_catalogue": False} if chosen.data else {}
    with tempfile.TemporaryDirectory() as folder, console_stack(Path(folder), **given) as stack:
        order = last_order(stack) if chosen.data else stack.place()
        with busy_console(stack) as url, chromium() as browser:
            print(f"{EVENTS_A_SECOND} events a second come in.\n")
            if chosen.data:
                print("page, or filter                              until shown   slowest request")
                for load in measure_loads(browser, stack, url):
                    print(load, flush=True)
                print()
            print("milliseconds of work a frame\n")
            print(
                "page          frames   p50   p95   p99    max  >16 ms  thread  CPU/frame  events"
            )
            for path in chosen.pages:
                name = "" if path == "overview" else path.format(order=order)
                found = measure(browser, url, name, chosen.seconds)
                slow |= found["each"] > FRAME_MILLISECONDS
                print(
                    f"{found['page'][:12]:<12} {found['frames']:7} {found['p50']:5.1f} {found['p95']:5.1f}"
                    f" {found['p99']:5.1f} {found['max']:6.1f} {found['over']:7.1%} {found['cpu']:7.1%}"
                    f" {found['each']:7.1f} ms {found['received']:7,}",
                    flush=True,
                )
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
