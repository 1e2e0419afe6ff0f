"""Measure how long the pages of the console take to show what is in a data folder, and the filters."""

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from playwright.sync_api import Browser, Page

from browser.driving import ConsoleStack, tab

PAGES: Final = (
    *("", "orders", "orders/{order}", "saga", "events", "dead-letters", "subscribers", "pauses"),
    *("stock", "stock/{product}", "shipments", "audit", "system", "search?q={order}"),
    *("search?q={user}", "search?q={product}"),
)
PRESETS: Final = ("flight", "stuck", "held", "parked", "cancelled", "failed", "completed")
FILTERS: Final = (
    *(f"preset={each}" for each in PRESETS),
    *("userId={user}", "productId={product}", "createdFrom={at}", "sort=oldest"),
    *("userId=nobody", "productId=none", "preset=failed&productId={product}"),
)
SHOWN: Final = (
    "() => document.querySelector('main h1') && !document.querySelector('main .skeleton')"
)
SLOWEST: Final = """since => performance.getEntriesByType("resource")
  .filter(each => each.startTime >= since && /\\/api\\/\\w+\\/(?!metrics|orders\\/stream)/.test(each.name))
  .map(each => [each.name.replace(/.*\\/api\\//, ""), each.duration])
  .sort((a, b) => b[1] - a[1])[0] ?? ["-", 0]"""


class Load(NamedTuple):
    """How long something took until it was shown, and its slowest request."""

    what: str
    seconds: float
    request: str
    request_seconds: float

    def __str__(self) -> str:
        what = f"{self.what[:44]:<44} {self.seconds * 1_000:7,.0f} ms"
        return f"{what}   {self.request_seconds * 1_000:7,.0f} ms  {self.request[:70]}"


def measure_loads(browser: Browser, stack: ConsoleStack, url: str) -> Iterator[Load]:
    """Yield how long each page and each filter took at this console, in a tab that had loaded the program
    before."""
    last = stack.request("orders", "/orders?limit=1")["items"][0]
    names = {
        "order": last["id"],
        "user": last["userId"],
        "product": last["items"][0]["productId"],
        "at": last["createdAt"][:16],
    }
    with tab(browser, url) as watched:
        watched.tolerates = lambda text: "404" in text  # A search that finds nothing.
        page = watched.page
        for pattern in PAGES:
            address = url + pattern.format(**names)
            yield _timed(page, pattern or "overview", lambda to=address: page.goto(to))  # type: ignore[misc]
        page.goto(f"{url}orders")
        page.wait_for_function(SHOWN)
        for pattern in FILTERS:
            wanted = f"orders?{pattern.format(**names)}"
            yield _timed(page, f"orders?{pattern}", lambda to=wanted: _filter(page, to))  # type: ignore[misc]


def _filter(page: Page, target: str) -> None:
    """Choose a filter, as a click on it does, and wait for its rows."""
    with page.expect_response(lambda answer: "/api/orders/orders?" in answer.url) as answered:
        page.evaluate(
            "to => import('./static/lib/router.js').then(each => each.navigate(to))", target
        )
    answered.value.finished()


def _timed(page: Page, what: str, show: Callable[[], object]) -> Load:
    since = 0.0 if "orders?" not in what else page.evaluate("performance.now()")
    began = time.monotonic()
    show()
    page.wait_for_function(SHOWN)
    seconds = time.monotonic() - began
    request, milliseconds = page.evaluate(SLOWEST, since)
    return Load(what, seconds, request, milliseconds / 1_000)
