"""Take the pictures of the console in `docs/console/` anew: `make screenshots`."""

import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page

from browser.driving import CHROMIUM, INSTALL, ConsoleStack, chromium, console_stack, tab
from repeating import repeating
from todoku.settings import Span

TARGET: Final = Path(__file__).parents[2] / "docs" / "console"
BYTES_MAX: Final = 60_000
QUALITY: Final = 60
PRODUCTS: Final = ("prod001", "prod002", "prod003", "keyboard", "mouse", "headset", "monitor")
PEOPLE: Final = ("alice", "田中", "suzuki", "bob")
ORDERS: Final = 24
ORDER_EVERY_SECONDS: Final = 0.4

SAMPLED: Final = """() => {
    const line = document.querySelector('.tile .spark polyline');
    return line !== null && line.getAttribute('points').split(' ').length > 3;
}"""
"""Whether the page has asked for the figures several times."""

PAGES: Final = {
    "overview": "",
    "orders": "orders",
    "order": "orders/{order}",
    "saga": "saga",
    "events": "events",
    "dead-letters": "dead-letters",
    "subscribers": "subscribers",
    "pauses": "pauses",
    "stock": "stock",
    "product": "stock/prod001",
    "shipments": "shipments",
    "audit": "audit",
    "system": "system",
}


def make_busy(stack: ConsoleStack) -> str:
    """Let things happen that every page has something to show of; return the id of an order with a story."""
    for number in range(ORDERS):
        body = {
            "userId": PEOPLE[number % len(PEOPLE)],
            "items": [{"productId": PRODUCTS[number % len(PRODUCTS)], "quantity": 1 + number % 2}],
            "shippingAddress": "東京都千代田区1-1",
        }
        stack.request("orders", "/orders", body)
    for _ in range(3):
        stack.place("monitor", 2, onShortage="wait")
    stack.publish("orders.created", b"no event 1", b"no event 2", b"no event 3")
    pause = {"target": "product:headset", "reason": "A recall is being checked.", "by": "alice"}
    stack.request("shipping", "/pauses", pause)
    stack.request("inventory", "/products/prod001/restock", {"quantity": 200, "reason": "Delivery"})
    hold = {"holder": "fraud-review", "reason": "Three orders in an hour."}
    return stack.place("prod001", 1, userId="田中", holds=[hold])


def trickle(stack: ConsoleStack) -> AbstractContextManager[None]:
    """Place orders of a product of which there is enough, a few a second."""
    people = cycle(PEOPLE)
    return repeating(
        lambda: stack.place("prod001", 1, userId=next(people)), every_seconds=ORDER_EVERY_SECONDS
    )


def picture(page: Page, path: Path) -> None:
    """Save what is seen, as small as asked for."""
    for quality in (QUALITY, 40, 25, 18):
        page.screenshot(path=path, type="jpeg", quality=quality)
        if path.stat().st_size <= BYTES_MAX:
            return


def take(browser: Browser, stack: ConsoleStack, order: str, language: str) -> None:
    """Take a picture of each page in one language."""
    options = {"locale": "ja-JP" if language == "ja" else "en-GB"}
    options |= {"viewport": {"width": 1280, "height": 800}}
    with tab(browser, stack.console_url, **options) as watched:
        page = watched.page
        page.locator("[data-connection=live]").wait_for()
        # Figures are drawn as lines, and events come in.
        page.wait_for_function(SAMPLED)
        for name, path in PAGES.items():
            page.evaluate(
                "(to) => { history.pushState(null, '', to);"
                " dispatchEvent(new PopStateEvent('popstate')); }",
                f"/{path.format(order=order)}",
            )
            page.locator("main h1").first.wait_for()
            page.wait_for_function("() => !document.querySelector('main .skeleton')")
            if name == "dead-letters":
                page.locator(".dead-group button[aria-expanded=false]").first.click()
                page.locator(".dead-group tbody tr").first.wait_for()
            picture(page, TARGET / f"{name}.{language}.jpg")
            print(f"{name}.{language}.jpg", flush=True)


def has_japanese_font() -> bool:
    """Return whether the pictures can show Japanese; True where that is unknown."""
    if shutil.which("fc-list") is None:
        return True
    found = subprocess.run(["fc-list", ":lang=ja"], capture_output=True, check=True)
    return bool(found.stdout.strip())


def main() -> None:
    """Take all pictures."""
    if CHROMIUM is None:
        sys.exit(INSTALL)
    if not has_japanese_font():
        sys.exit("no Japanese font is installed: `apt-get install fonts-noto-cjk` (Debian)")
    TARGET.mkdir(parents=True, exist_ok=True)
    changes = {
        "carrier_success_rate": 0.8,
        "carrier_delay_seconds": Span(0.2, 3),
        "audit": "on",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        console_stack(Path(folder), **changes) as stack,
        chromium() as browser,
    ):
        order = make_busy(stack)
        with trickle(stack):
            for language in ("en", "ja"):
                take(browser, stack, order, language)


if __name__ == "__main__":
    main()
