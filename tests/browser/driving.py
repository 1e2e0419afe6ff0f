"""Drives the console of a real system with Debian's chromium."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from broker_access import connect_as_operator
from todoku.lab.stack import READY, Stack, free_ports, isolated_settings
from todoku.settings import CONSOLE, Span

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL: Final = (
    "chromium is not installed: `apt-get install chromium` (Debian), or your system's equivalent"
)
REQUIRED: Final = os.environ.get("TODOKU_BROWSER") == "required"
"""Whether a machine without chromium fails the tests instead of skipping them: `make test-browser`."""

ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
BOUND_MILLISECONDS: Final = 40_000
START_SECONDS_MAX: Final = 180.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a headless browser."""
    assert CHROMIUM is not None, INSTALL
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def console_stack(
    folder: Path, data_dir: Path | None = None, **changes: Any
) -> Iterator["ConsoleStack"]:
    """Start a system with its console; `data_dir` is its data folder, if it is not one in `folder`."""
    (port,) = free_ports(1)
    settings = isolated_settings(
        data_dir or folder / "data",
        **{
            "console": True,
            "console_port": port,
            "demo_catalogue": True,
            "carrier_success_rate": 1.0,  # What becomes of an order is not left to chance.
            "carrier_delay_seconds": Span(0.2, 0.4),
        }
        | changes,
    )
    with ConsoleStack(settings, folder / "up.log") as stack:
        stack.start()
        stack.until_responds(CONSOLE)
        yield stack


class ConsoleStack(Stack):
    """A system with a console."""

    @property
    def console_url(self) -> str:
        """The address of the console, with a slash at the end."""
        return self.url(CONSOLE) + "/"

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Run `todoku up`, and wait until everything is ready, longer than usual: a browser is started beside
        it. Raises `TimeoutError`."""
        self.launch(environment)
        self.output.until(READY, START_SECONDS_MAX)

    def until_responds(self, program: str) -> None:
        """Wait until a service is ready, or the console, for which `up` does not wait."""
        self._until(lambda: self.client.is_ready(program), f"{program} does not respond")

    def publish(self, subject: str, *bodies: bytes) -> None:
        """Publish messages as the broker's operator may."""

        async def publish() -> None:
            connection = await connect_as_operator(self.settings.nats_port, self.settings.data_dir)
            for body in bodies:
                await connection.jetstream().publish(subject, body)
            await connection.close()

        # Playwright's own event loop runs in this thread.
        thread = threading.Thread(target=lambda: asyncio.run(publish()))
        thread.start()
        thread.join()

    def park(self, *bodies: bytes) -> int:
        """Publish messages that nobody can read, and wait until inventory has parked them; return how many
        messages are parked there."""
        wanted = self.parked() + len(bodies)
        self.publish("orders.created", *bodies)
        self._until(lambda: self.parked() == wanted, "the messages are not parked")
        return wanted

    def parked(self) -> int:
        """Return how many messages are parked at inventory."""
        found = self.request("inventory", "/dead-letters?state=PARKED&limit=200")
        return len(found["items"])

    @contextmanager
    def gone(self, service: str) -> Iterator[None]:
        """Kill a service, and keep it from being started again until the block ends."""
        victim, up = self.pid(service), self.pids()["up"]
        os.kill(up, signal.SIGSTOP)
        try:
            os.kill(victim, signal.SIGKILL)
            yield
        finally:
            os.kill(up, signal.SIGCONT)

    def request(self, service: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request to a service, past the console."""
        import httpx

        with httpx.Client(base_url=self.url(service), trust_env=False) as http:
            answer = http.get(path) if body is None else http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def place(self, product: str = "prod001", quantity: int = 1, **more: Any) -> str:
        """Place an order past the console, of alice unless `userId` is given; return its id."""
        items = [{"productId": product, "quantity": quantity}]
        order = self.request("orders", "/orders", {"userId": "alice", "items": items} | more)
        return str(order["id"])


class Watched:
    """A tab, and everything in it that must not happen."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tolerates: Callable[[str], bool] = lambda _: False
        page.set_default_timeout(BOUND_MILLISECONDS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not self.tolerates(message.text):
            self.errors.append(message.text)

    def _request(self, request: Request) -> None:
        if request.url.startswith(("data:", "blob:")):
            return
        self.requests.append(urlsplit(request.url).hostname or "")

    def require_clean(self) -> None:
        """Fail if the page has logged an error, or asked another machine for anything."""
        assert not self.errors, self.errors
        assert set(self.requests) <= {"127.0.0.1"}


@contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """Open a page, and require at the end that it was clean."""
    context = browser.new_context(
        **{
            "locale": "en-GB",
            "timezone_id": "Asia/Tokyo",
            "viewport": {"width": 1280, "height": 860},
        }
        | options
    )
    watched = Watched(context.new_page())
    watched.page.goto(url)
    watched.page.locator("main h1").first.wait_for()
    yield watched
    watched.require_clean()
    context.close()
