"""Pages of other sites, in a real browser, place no order, read none and frame no page (CSRF, DNS rebinding).

The attacker's names lead to this machine by a rule of the browser, as a change of DNS would.
"""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Final
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route as Path

from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web.hosts import known_hosts
from web.edge import listening, running

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED: Final = os.environ.get("TODOKU_BROWSER") == "required"
INSTALL: Final = "chromium is not installed: `apt-get install chromium`"
ATTACKER: Final = "attacker.example"
ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"),
    f"--host-resolver-rules=MAP {ATTACKER} 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks",  # Older browsers do not help the service.
)
BOUND_MILLISECONDS: Final = 20_000

ORDER: Final = '{"userId":"mallory","items":[{"productId":"p","quantity":1,"price":1}]}'

ATTACKS: Final = {
    "form": """
        const form = document.createElement("form");
        form.action = service + "/orders"; form.method = "post"; form.enctype = "text/plain";
        form.target = "hidden";
        const input = document.createElement("input");
        input.name = order.slice(0, -1) + ',"x":"'; input.value = '"}';
        form.append(input); document.body.append(form);
        await new Promise(done => {
          document.getElementById("hidden").onload = done; form.submit();
        });
        return "sent";""",
    "fetch without CORS": """
        const answer = await fetch(service + "/orders", {method: "POST", mode: "no-cors", body: order});
        return answer.type;""",
    "fetch of JSON": """
        return await fetch(service + "/orders", {
          method: "POST", headers: {"Content-Type": "application/json"}, body: order
        }).then(answer => "read " + answer.status, () => "refused");""",
    "beacon": """
        navigator.sendBeacon(service + "/orders", new Blob([order], {type: "text/plain"}));
        return await fetch(service + "/orders", {mode: "no-cors"}).then(answer => answer.type);""",
    "fetch that reads": """
        return await fetch(service + "/orders").then(answer => "read " + answer.status, () => "refused");""",
}

SCRIPT: Final = "async ([service, order]) => {{ {} }}"

REBOUND: Final = """async ([method, body]) => {
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch("/orders", {method, body, headers});
  return [answer.status, await answer.text()];
}"""

SHOWS_ORDERS: Final = (
    "document.querySelector('rapi-doc').shadowRoot?.textContent.includes('Place an order')"
)

EXPECTED: Final = {
    "form": "sent",
    "fetch without CORS": "opaque",
    "fetch of JSON": "refused",
    "beacon": "opaque",
    "fetch that reads": "refused",
}


async def show_attack(request: Request) -> HTMLResponse:
    """Answer with the attacker's page."""
    return HTMLResponse("<body><iframe id=hidden name=hidden></iframe></body>")


class Sites:
    """The orders service and the attacker's site, in a thread of their own."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Sites":
        self._thread.start()
        assert self._ready.wait(BOUND_MILLISECONDS / 1_000)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def service(self) -> str:
        """The address of the service, under its own name."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def attack(self) -> str:
        """The address of the attacker's page."""
        return f"http://{ATTACKER}:{self._attack_port}/"

    def order_count(self) -> int:
        """Return how many orders the service has."""
        with urlopen(f"{self.service}/orders") as answer:
            return len(json.load(answer)["items"])

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        hosts = known_hosts("127.0.0.1", "")
        evil = Starlette(routes=[Path("/", show_attack)])
        async with (
            running(orders_service(Settings()), orders_api, hosts=hosts) as orders,
            listening(orders) as (_, self.port),
            listening(evil) as (_, self._attack_port),
        ):
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)(INSTALL)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(BOUND_MILLISECONDS)
    yield page
    page.close()


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with Sites() as sites:
        yield sites


@pytest.mark.parametrize("attack", ATTACKS)
def test_page_of_another_site_places_and_reads_no_order(
    attack: str, page: Page, sites: Sites
) -> None:
    before = sites.order_count()
    page.goto(sites.attack)
    result = page.evaluate(SCRIPT.format(ATTACKS[attack]), [sites.service, ORDER])
    assert result == EXPECTED[attack]
    assert sites.order_count() == before


def test_page_of_the_service_itself_places_an_order(page: Page, sites: Sites) -> None:
    """So that the attacks above fail for the right reason."""
    before = sites.order_count()
    page.goto(f"{sites.service}/problems")
    assert page.evaluate(SCRIPT.format(ATTACKS["fetch of JSON"]), ["", ORDER]) == "read 201"
    assert sites.order_count() == before + 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_name_that_was_rebound_to_this_machine_is_refused(
    method: str, page: Page, sites: Sites
) -> None:
    """The page comes from the attacker; then its name leads to the service, as the same origin."""
    before = sites.order_count()
    page.route("**/first", lambda route: route.fulfill(content_type="text/html", body="<body>"))
    page.goto(f"http://{ATTACKER}:{sites.port}/first")
    status, text = page.evaluate(REBOUND, [method, ORDER if method == "POST" else None])
    assert status == 421
    assert "unknown-host" in text
    assert sites.order_count() == before


def test_no_page_of_a_service_can_be_framed(page: Page, sites: Sites) -> None:
    page.goto(sites.attack)
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.evaluate(
            "address => { document.getElementById('hidden').src = address }",
            f"{sites.service}/docs",
        )


def test_documentation_works_under_its_security_policy(page: Page, sites: Sites) -> None:
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{sites.service}/docs")
    for _ in range(BOUND_MILLISECONDS // 200):
        if page.evaluate(SHOWS_ORDERS):
            break
        page.wait_for_timeout(200)  # What waits inside of the page is stopped by its policy.
    assert page.evaluate(SHOWS_ORDERS)
    assert complaints == []
