"""The console in a real browser, in front of a real system: what an operator does, and what may go wrong."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.driving import BOUND_MILLISECONDS, ConsoleStack, tab

AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PAGES = (
    "",
    "orders",
    "orders/{order}",
    "saga",
    "events",
    "dead-letters",
    "subscribers",
    "pauses",
    "stock",
    "stock/prod001",
    "shipments",
    "audit",
    "system",
)

expect.set_options(timeout=BOUND_MILLISECONDS)


def fill(page: Page, name: str, value: str) -> None:
    """Type into a field of the open dialog."""
    page.locator(f"dialog #field-{name}").fill(value)


def confirm(page: Page) -> None:
    """Press the button of the open dialog that does it."""
    page.locator("dialog button[type=submit]").click()


def test_placed_order_is_seen_until_it_ends(browser: Browser, stack: ConsoleStack) -> None:
    with tab(browser, stack.console_url) as watched:
        page = watched.page
        expect(page.locator("[data-connection=live]")).to_be_visible()
        page.get_by_role("button", name="Place an order").click()
        page.locator("dialog #field-product").select_option("prod001")
        expect(page.locator("dialog .cli code")).to_contain_text("todoku order place prod001:1")
        confirm(page)
        expect(page).to_have_url(re.compile("/orders/[0-9a-f-]{36}$"))
        expect(page.locator(".page-head .badge")).to_have_text("Completed")
        expect(page.locator(".story")).to_contain_text("The carrier accepted the parcel")
        expect(page.locator(".timeline svg circle")).to_have_count(5)
        expect(page.get_by_role("button", name="Cancel order")).to_be_disabled()


def test_paused_held_and_cancelled(browser: Browser, stack: ConsoleStack) -> None:
    with tab(browser, f"{stack.console_url}pauses") as watched:
        page = watched.page
        page.get_by_role("button", name="Pause", exact=True).click()
        fill(page, "reason", "The warehouse is closed.")
        fill(page, "by", "alice")
        expect(page.locator("dialog .cli code")).to_have_text(
            "todoku pause carrier --reason 'The warehouse is closed.' --by alice"
        )
        confirm(page)
        expect(page.locator("main table").first).to_contain_text("The warehouse is closed.")

        order = stack.place()
        page.goto(f"{stack.console_url}orders/{order}")
        expect(page.locator(".notice").first).to_contain_text("paused")
        page.get_by_role("button", name="Hold", exact=True).click()
        fill(page, "holder", "fraud-review")
        fill(page, "reason", "A new card.")
        confirm(page)
        expect(page.locator(".notice").first).to_contain_text("Held by fraud-review")
        page.get_by_role("button", name="Release", exact=True).click()
        confirm(page)
        expect(page.locator(".story")).to_contain_text("The hold of fraud-review is released.")
        page.get_by_role("button", name="Cancel order").click()
        fill(page, "reason", "Ordered twice.")
        confirm(page)
        expect(page.locator(".page-head .badge")).to_have_text("Cancelled")
        expect(page.locator(".story")).to_contain_text("Compensation: inventory released prod001")
        expect(page.locator(".timeline .arrow.compensates").first).to_be_attached()

        page.goto(f"{stack.console_url}pauses")
        page.get_by_role("button", name="Resume").first.click()
        confirm(page)
        expect(page.get_by_text("Nothing is paused")).to_be_visible()


def test_group_of_dead_letters_is_retried_and_one_discarded(
    browser: Browser, stack: ConsoleStack
) -> None:
    parked = stack.park(b"no event 1", b"no event 2", b"no event 3")
    with tab(browser, f"{stack.console_url}dead-letters") as watched:
        page = watched.page
        group = page.locator(".dead-group").first
        expect(group).to_contain_text(f"{parked} messages")
        group.get_by_role("button", name="Retry all").click()
        expect(page.locator("dialog .preview")).to_contain_text(f"{parked} messages of inventory")
        fill(page, "rate", "100")
        fill(page, "by", "alice")
        confirm(page)
        expect(page.locator(".toast")).to_contain_text(f"{parked} retries are scheduled.")
        group.locator("button[aria-expanded]").click()
        expect(group.locator("tbody tr")).to_have_count(parked)
        group.locator("tbody a").first.click()
        page.get_by_role("button", name="Discard", exact=True).click()
        fill(page, "reason", "A test.")
        confirm(page)
        expect(page.locator("main .card").first).to_contain_text("Discarded")
        expect(page.locator(".dead-group").first).to_contain_text(f"{parked - 1} messages")


def test_group_of_dead_letters_is_discarded(browser: Browser, stack: ConsoleStack) -> None:
    parked = stack.park(b"no event 4", b"no event 5")
    with tab(browser, f"{stack.console_url}dead-letters") as watched:
        page = watched.page
        page.get_by_role("button", name="Discard all").first.click()
        expect(page.locator("dialog .preview")).to_contain_text(f"{parked} messages of inventory")
        fill(page, "reason", "A test.")
        fill(page, "by", "alice")
        expect(page.locator("dialog .cli code")).to_contain_text(
            "xargs -n1 todoku dead discard --service inventory --reason 'A test.' --by alice"
        )
        confirm(page)
        page.locator("dialog").get_by_role("button", name="Close").click()
        expect(page.get_by_text("No message needs a decision")).to_be_visible()
    assert stack.parked() == 0


def test_restock_and_a_count_that_somebody_else_overtakes(
    browser: Browser, stack: ConsoleStack
) -> None:
    with tab(browser, f"{stack.console_url}stock/prod002") as watched:
        page = watched.page
        on_hand = page.locator(".tile .value").first
        before = int(on_hand.inner_text())
        page.get_by_role("button", name="Restock", exact=True).click()
        fill(page, "quantity", "5")
        confirm(page)
        expect(on_hand).to_have_text(str(before + 5))

        page.get_by_role("button", name="Count", exact=True).click()
        fill(page, "counted", str(before + 4))
        stack.request("inventory", "/products/prod002/restock", {"quantity": 2})
        confirm(page)
        expect(page.locator("dialog")).to_contain_text(f"it is now {before + 7}")
        expect(page.locator("dialog .preview")).to_contain_text("(-3)")
        confirm(page)
        expect(on_hand).to_have_text(str(before + 4))


def test_price_that_somebody_else_has_changed_is_not_overwritten_unseen(
    browser: Browser, stack: ConsoleStack
) -> None:
    with tab(browser, f"{stack.console_url}stock/prod003") as watched:
        watched.tolerates = lambda text: "412" in text
        page = watched.page
        page.get_by_role("button", name="Change", exact=True).click()
        fill(page, "price", "41000")
        import httpx

        change = {"name": "Their name", "price": 39_000}
        httpx.put(f"{stack.url('inventory')}/products/prod003", json=change).raise_for_status()
        confirm(page)
        expect(page.locator("dialog")).to_contain_text("Their name")
        page.get_by_role("button", name="Save anyway").click()
        expect(page.locator(".lead")).to_contain_text("41,000")


def test_service_that_is_killed_is_told_and_comes_back(
    browser: Browser, stack: ConsoleStack
) -> None:
    with tab(browser, stack.console_url) as watched:
        watched.tolerates = lambda text: "502" in text
        page = watched.page
        shipping = page.locator("[data-service=shipping]")
        expect(shipping).to_contain_text("Running")
        with stack.gone("shipping"):
            expect(shipping).to_contain_text("Does not respond")
        expect(shipping).to_contain_text("Running", timeout=60_000)
        order = stack.place()
        page.goto(f"{stack.console_url}orders/{order}")
        expect(page.locator(".page-head .badge")).to_have_text("Completed")


def test_stream_is_found_again_after_orders_was_killed(
    browser: Browser, stack: ConsoleStack
) -> None:
    with tab(browser, f"{stack.console_url}events") as watched:
        watched.tolerates = lambda text: "502" in text or "ERR_" in text
        page = watched.page
        chip = page.locator("[data-connection]")
        expect(chip).to_have_attribute("data-connection", "live")
        first = stack.place()
        expect(page.locator(f".tail a[href$='{first}']").first).to_be_visible()
        with stack.gone("orders"):
            expect(chip).to_have_attribute("data-connection", "reconnecting")
        stack.until_responds("orders")
        order = stack.place()
        expect(chip).to_have_attribute("data-connection", "live")
        expect(page.locator(f".tail a[href$='{order}']").first).to_be_visible()


def test_keyboard_is_enough(browser: Browser, stack: ConsoleStack) -> None:
    order = stack.place()
    with tab(browser, stack.console_url) as watched:
        page, keys = watched.page, watched.page.keyboard
        keys.press("?")
        expect(page.locator("dialog")).to_contain_text("Next and previous row")
        keys.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
        while not page.url.endswith("/orders"):  # They count together for 1.5 s only.
            keys.press("g")
            keys.press("o")
        expect(page.locator(f"tr[data-order='{order}']")).to_be_visible()
        keys.press("j")
        keys.press("j")
        keys.press("k")
        keys.press("Enter")
        expect(page.locator("main .timeline")).to_be_visible()
        keys.press("/")
        keys.type(order)
        keys.press("Enter")
        expect(page).to_have_url(re.compile(f"/orders/{order}$"))


def test_dialogs_are_open_at_first_sight(browser: Browser, stack: ConsoleStack) -> None:
    with tab(browser, stack.console_url) as watched:
        page, keys = watched.page, watched.page.keyboard
        page.evaluate(
            "() => { window.seen = [];"
            " new MutationObserver(() => document.querySelectorAll('dialog').forEach((each) =>"
            " window.seen.push(each.open))).observe(document.body, {childList: true, subtree: true}); }"
        )
        for name in ("Preferences", "Place an order"):
            button = page.get_by_role("button", name=name)
            button.click()
            expect(page.locator("dialog")).to_have_count(1)
            keys.press("Escape")
            expect(page.locator("dialog")).to_have_count(0)
            expect(button).to_be_focused()
        keys.press("?")
        expect(page.locator("dialog")).to_have_count(1)
        assert set(page.evaluate("() => window.seen")) == {True}


def test_new_orders_wait_behind_a_chip(browser: Browser, stack: ConsoleStack) -> None:
    listed = stack.place()
    with tab(browser, f"{stack.console_url}orders") as watched:
        page = watched.page
        expect(page.locator("[data-connection=live]")).to_be_visible()
        expect(page.locator(f"tr[data-order='{listed}']")).to_be_visible()
        orders = [stack.place(), stack.place()]
        page.get_by_role("button", name="2 new orders").click()
        for order in orders:
            expect(page.locator(f"tr[data-order='{order}']")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "scheme", "width"), [("en-GB", "light", 1280), ("ja-JP", "dark", 390)]
)
def test_every_page_is_accessible_and_as_wide_as_the_screen(
    browser: Browser, stack: ConsoleStack, language: str, scheme: str, width: int
) -> None:
    order = stack.place()
    options = {
        "locale": language,
        "color_scheme": scheme,
        "viewport": {"width": width, "height": 800},
        "reduced_motion": "reduce",
    }
    with tab(browser, stack.console_url, **options) as watched:
        page = watched.page
        page.evaluate(AXE)
        problems = {}
        for path in PAGES:
            page.evaluate(
                "(to) => { history.pushState(null, '', to); dispatchEvent(new PopStateEvent('popstate')); }",
                f"/{path.format(order=order)}",
            )
            expect(page.locator("main .skeleton")).to_have_count(0)
            found = page.evaluate(
                "() => axe.run(document, {resultTypes: ['violations']}).then((result) =>"
                " result.violations.map((each) => each.id + ': ' + each.nodes.map((node) =>"
                " node.html.slice(0, 160)).slice(0, 3).join(' | ')))"
            )
            wide = page.evaluate("() => document.documentElement.scrollWidth")
            if found or wide > width:
                problems[path] = [*found, *([f"{wide} px wide"] if wide > width else [])]
        assert problems == {}
        assert page.locator("html").get_attribute("lang") == language[:2]
