"""Take the pictures of the console in `docs/console/` anew: `make screenshots`."""

import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page

from browser.driving import CHROMIUM, INSTALL, ConsoleStack, chromium, console_stack, tab
from todoku.settings import Span

TARGET: Final = Path(__file__).parents[2] / "docs" / "console"
BYTES_MAX: Final = 60_000
QUALITY: Final = 60
PRODUCTS: Final = ("prod001", "prod002", "prod003", "keyboard", "mouse", "headset", "monitor")
PEOPLE: Final = ("alice", "田中", "suzuki", "bob")

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


def busy(stack: ConsoleStack) -> str:
    """Let things happen; return the id of an order with a story."""
    for number in range(24):
        product = PRODUCTS[number % len(PRODUCTS)]
        stack.request(
            "orders",
            "/orders",
            {
                "userId": PEOPLE[number % len(PEOPLE)],
                "items": [{"productId": product, "quantity": 1 + number % 2}],
                "shippingAddress": "東京都千代田区1-1",
            },
        )
    stack.publish("orders.created", b"no event 1", b"no event 2", b"no event 3")
    stack.request(
        "shipping",
        "/pauses",
        {"target": "carrier", "reason": "The warehouse is closed.", "by": "alice"},
    )
    order = stack.place("prod001", 1)
    hold = {"holder": "fraud-review", "reason": "Three orders in an hour."}
    stack.request("orders", f"/orders/{order}/holds", hold)
    return order


def picture(page: Page, path: Path) -> None:
    """Save what is seen, as small as asked for."""
    for quality in (QUALITY, 40, 25):
        page.screenshot(path=path, type="jpeg", quality=quality)
        if path.stat().st_size <= BYTES_MAX:
            return


def take(browser: Browser, stack: ConsoleStack, language: str) -> None:
    """Take a picture of each page in one language."""
    order = busy(stack) if not stack.request("orders", "/orders?held=true")["items"] else ""
    order = order or stack.request("orders", "/orders?held=true")["items"][0]["id"]
    options = {"locale": "ja-JP" if language == "ja" else "en-GB"}
    options |= {"viewport": {"width": 1280, "height": 800}}
    with tab(browser, stack.console_url, **options) as watched:
        page = watched.page
        page.locator("[data-connection=live]").wait_for()
        stack.place("mouse", 1, holds=[{"holder": "address-check", "reason": "No house number."}])
        for name, path in PAGES.items():
            page.evaluate(
                "(to) => { history.pushState(null, '', to);"
                " dispatchEvent(new PopStateEvent('popstate')); }",
                f"/{path.format(order=order)}",
            )
            page.locator("main h1").first.wait_for()
            page.wait_for_function("() => !document.querySelector('main .skeleton')")
            picture(page, TARGET / f"{name}.{language}.jpg")
            print(f"{name}.{language}.jpg")


def main() -> None:
    """Take all pictures."""
    if CHROMIUM is None:
        sys.exit(INSTALL)
    TARGET.mkdir(parents=True, exist_ok=True)
    changes = {"carrier_success_rate": 0.8, "carrier_delay_seconds": Span(0.2, 3)}
    with (
        tempfile.TemporaryDirectory() as folder,
        console_stack(Path(folder), **changes) as stack,
        chromium() as browser,
    ):
        for language in ("en", "ja"):
            take(browser, stack, language)


if __name__ == "__main__":
    main()
