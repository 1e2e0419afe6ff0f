"""Log in at the console in a real browser, by key and at a real issuer on another site; attacks of pages."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.driving import BOUND_MILLISECONDS, ConsoleStack, console_stack
from security.certificates import Authority
from security.issuer import Issuer, issuing

FORM: Final = "form.notice"
LIVE: Final = "document.querySelector('[data-connection=live]')"
SHORT_SECONDS: Final = (4, 8, 16, 32)
"""How long a session may be for a test that waits for its end: the first that is long enough to be used."""

STORED: Final = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])"
ATTACK: Final = """async ([address, token]) => {
  const pause = JSON.stringify({target: "service", reason: "attack"});
  const form = document.createElement("form");
  form.action = address; form.method = "post"; form.enctype = "text/plain"; form.target = "hidden";
  const input = document.createElement("input");
  input.name = pause.slice(0, -1) + ',"x":"'; input.value = '"}';
  form.append(input);
  const frame = document.createElement("iframe");
  frame.name = "hidden";
  document.body.append(frame, form);
  await new Promise(done => { frame.onload = done; form.submit(); });
  const headers = {"Content-Type": "application/json", "X-CSRF-Token": "guessed"};
  const send = (options) => fetch(address, {method: "POST", credentials: "include", body: pause, ...options})
    .then(answer => answer.type + answer.status, () => "refused");
  const read = await fetch(address, {credentials: "include"}).then(() => "read", () => "refused");
  return [await send({mode: "no-cors"}), await send({headers}), read];
}"""
PAUSES: Final = "async () => (await (await fetch('api/orders/pauses')).json()).items.length"

expect.set_options(timeout=BOUND_MILLISECONDS)


@contextmanager
def issuer_elsewhere() -> Iterator[Issuer]:
    """Run an issuer in a thread, under a name that is another site for the browser than the console."""
    ready = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        async with issuing() as issuer:
            issuer.address = issuer.address.replace("127.0.0.1", "localhost")
            issuer.logins.scope = "openid orders:read shipments:read metrics:read system:pause"
            stop = asyncio.Event()
            found.extend((issuer, stop, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(BOUND_MILLISECONDS / 1_000)
    issuer, stop, loop = found
    yield issuer
    loop.call_soon_threadsafe(stop.set)
    thread.join()


class Secured:
    """A system that wants credentials, its console, and the issuer of access tokens."""

    def __init__(self, stack: ConsoleStack, issuer: Issuer, key: str) -> None:
        self.stack = stack
        self.issuer = issuer
        self.key = key

    @property
    def url(self) -> str:
        """The address of the console."""
        return self.stack.console_url


@pytest.fixture(scope="module", params=["http", "https"])
def secured(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder: Path = tmp_path_factory.mktemp("secured")
    tls: dict[str, Any] = {}
    if request.param == "https":
        tls["tls_cert"], tls["tls_key"] = Authority().issue(folder)
    with (
        issuer_elsewhere() as issuer,
        console_stack(
            folder,
            auth="required",
            bootstrap_key_file=folder / "key",
            oidc_issuer=issuer.address,
            oidc_audience="todoku",
            oidc_console_client_id="console",
            **tls,
        ) as stack,
    ):
        yield Secured(stack, issuer, (folder / "key").read_text().strip())


@contextmanager
def person(browser: Browser, secured: Secured, path: str = "", **options: Any) -> Iterator[Page]:
    """Open the console in a browser of its own."""
    context = browser.new_context(ignore_https_errors=True, **({"locale": "en-GB"} | options))
    page = context.new_page()
    page.set_default_timeout(BOUND_MILLISECONDS)
    page.goto(secured.url + path)
    yield page
    context.close()


def log_in_at_issuer(page: Page) -> bool:
    """Log in, and wait for the page that comes after it; return whether it is live. It is not if the session
    has ended before that."""
    page.evaluate("() => { window.isBefore = true; }")
    page.get_by_role("link", name="Log in with the identity provider").click()
    page.wait_for_function(
        f"() => !window.isBefore && ({LIVE} || document.querySelector('{FORM}'))"
    )
    return bool(page.evaluate(f"() => {LIVE} !== null"))


def test_key_is_typed_once_and_no_script_has_it_afterwards(
    browser: Browser, secured: Secured
) -> None:
    with person(browser, secured, "orders", locale="ja-JP") as page:
        expect(page.locator(FORM)).to_contain_text("サービスの利用にはログインが必要です。")
        page.get_by_label("API キー").fill("tdk_wrong_key")
        page.get_by_role("button", name="ログイン", exact=True).click()
        expect(page.locator(FORM)).to_contain_text("このキーは拒否されました")
        page.get_by_label("API キー").fill(secured.key)
        page.get_by_role("button", name="ログイン", exact=True).click()
        expect(page.locator("[data-connection=live]")).to_be_visible()
        expect(page.locator(FORM)).to_have_count(0)
        stored = page.evaluate(STORED)
        assert secured.key not in stored + page.content()
        assert "todoku-session" not in stored
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        is_https = secured.url.startswith("https")
        assert (cookie["secure"], cookie["name"].startswith("__Host-")) == (is_https, is_https)
        page.reload()
        expect(page.locator("[data-connection=live]")).to_be_visible()
        page.get_by_role("button", name="設定").click()
        page.get_by_role("button", name="ログアウト").click()
        expect(page.locator(FORM)).to_be_visible()
        assert page.context.cookies() == []


def test_person_of_the_issuer_comes_back_to_the_page_and_acts(
    browser: Browser, secured: Secured
) -> None:
    with person(browser, secured, "orders?status=COMPLETED") as page:
        assert log_in_at_issuer(page)
        expect(page).to_have_url(f"{secured.url}orders?status=COMPLETED")
        assert {each["sameSite"] for each in page.context.cookies()} == {"Strict"}
        assert "eyJ" not in page.evaluate(STORED)
        page.goto(f"{secured.url}pauses")
        # From then on the page knows who is logged in, and asks for no name.
        expect(page.locator("[data-connection=live]")).to_be_visible()
        page.get_by_role("button", name="Pause", exact=True).click()
        page.locator("dialog #field-reason").fill("The warehouse is closed.")
        page.locator("dialog button[type=submit]").click()
        expect(page.locator("main table").first).to_contain_text("The warehouse is closed.")
        expect(page.locator("main table").first).to_contain_text("alice")


def test_pages_of_others_change_and_read_nothing_with_the_cookie(
    browser: Browser, secured: Secured
) -> None:
    with person(browser, secured) as page:
        assert log_in_at_issuer(page)
        before = page.evaluate(PAUSES)
        # Another site, and another port of this host, to which the browser sends the cookie as well.
        near = secured.issuer.address.replace("localhost", "127.0.0.1")
        for origin in (secured.issuer.address, near):
            attacker = page.context.new_page()
            attacker.route(
                "**/attack", lambda route: route.fulfill(body="<body>", content_type="text/html")
            )
            attacker.goto(f"{origin}/attack")
            outcome = attacker.evaluate(ATTACK, [f"{secured.url}api/orders/pauses", ""])
            assert outcome == ["refused", "refused", "refused"]
            attacker.close()
        assert page.evaluate(PAUSES) == before
        unguarded = "fetch('api/orders/pauses', {method: 'POST', body: '{}'}).then(a => a.status)"
        assert page.evaluate(unguarded) == 403


def test_login_leads_to_no_other_site(browser: Browser, secured: Secured) -> None:
    elsewhere = secured.issuer.address.removeprefix("http:")
    with person(browser, secured, f"session/login?to={elsewhere}/") as page:
        expect(page.locator("[data-connection=live]")).to_be_visible()
        assert page.url.startswith(secured.url)


def test_refusal_of_the_issuer_is_told(browser: Browser, secured: Secured) -> None:
    secured.issuer.logins.denies = True
    try:
        with person(browser, secured, "session/login?to=orders") as page:
            expect(page.locator(FORM)).to_contain_text("has refused the login")
    finally:
        secured.issuer.logins.denies = False


def test_session_that_ends_while_the_stream_is_open_asks_for_a_login(
    browser: Browser, secured: Secured
) -> None:
    logins = secured.issuer.logins
    logins.renews = False
    try:
        with person(browser, secured) as page:
            for logins.seconds in SHORT_SECONDS:
                if log_in_at_issuer(page):
                    break
            logins.renews, logins.seconds = True, 600
            expect(page.locator(FORM)).to_be_visible()
            assert log_in_at_issuer(page)
            expect(page.locator(FORM)).to_have_count(0)
    finally:
        logins.renews, logins.seconds = True, 600
