"""An operator who has nothing but the console: reads its pages in a browser, and counts the clicks."""

import re
import time
from collections.abc import Sequence
from typing import Final

from playwright.sync_api import Locator, Page, expect

NAME: Final = "night operator"
PATIENCE_SECONDS: Final = 120.0


class Operator:
    """Works at one tab, which is open all the time."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0

    def click(self, target: Locator) -> None:
        """Click on something, and count it."""
        target.click()
        self.clicks += 1

    def press(self, name: str) -> None:
        """Click on the first button of this name on the page."""
        self.click(self.page.locator("main").get_by_role("button", name=name, exact=True).first)

    def fill(self, **fields: str) -> None:
        """Type into the fields of the open dialog; it asks for the operator's name as well, if it has to."""
        dialog = self.page.locator("dialog[open]")
        dialog.wait_for()
        for name, value in fields.items():
            dialog.locator(f"#field-{name}").fill(value)
        by = dialog.locator("#field-by")
        if by.count():
            by.fill(NAME)

    def confirm(self, *, many: bool = False) -> None:
        """Press the button of the open dialog that does it, and wait until it is done; with `many`, close the
        dialog that shows how far it is."""
        self.click(self.page.locator("dialog button[type=submit]"))
        if many:
            self.click(self.page.locator("dialog").get_by_role("button", name="Close"))
        expect(self.page.locator("dialog")).to_have_count(0)

    def go_home(self) -> None:
        """Go back to the overview."""
        self.click(self.page.locator("nav a.item").first)
        self.page.locator("[data-service]").first.wait_for()

    def problem(self, key: str) -> Locator:
        """Return where the overview tells of a problem."""
        return self.page.locator(f"[data-problem='attention.{key}']").first

    def wait_for_problem(self, key: str) -> float:
        """Wait until the overview tells of a problem; return the seconds."""
        begun = time.monotonic()
        expect(self.problem(key)).to_be_visible(timeout=PATIENCE_SECONDS * 1000)
        return time.monotonic() - begun

    def wait_for_calm(self, key: str) -> None:
        """Wait until the overview does not tell of a problem any more."""
        expect(self.page.locator(f"[data-problem='attention.{key}']")).to_have_count(
            0, timeout=PATIENCE_SECONDS * 1000
        )

    def read(self, place: Locator, wanted: Sequence[str]) -> str:
        """Return the text of a place once it matches all these patterns."""
        for pattern in wanted:
            expect(place).to_contain_text(re.compile(pattern), timeout=PATIENCE_SECONDS * 1000)
        return " ".join(place.inner_text().split())

    def follow(self, key: str, wanted: Sequence[str]) -> str:
        """Open the page that a problem leads to; return its title once it says what was wanted."""
        self.click(self.problem(key).locator("a").first)
        main = self.page.locator("main")
        self.read(main, wanted)
        # Without the id of an order.
        return re.sub(" .*….*", "", self.page.locator("main h1").inner_text().strip())
