"""The logic of the page without the page: story, timeline, metrics, streams, commands."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from browser.driving import ConsoleStack

CREATED = {
    "id": "a",
    "type": "OrderCreatedEvent",
    "source": "orders",
    "cause": None,
    "time": "2030-01-02T03:04:05.000001Z",
    "sequence": 1,
    "data": {"userId": "alice", "items": [], "totalAmount": 1, "currency": "JPY"},
}
RESERVED = CREATED | {
    "id": "b",
    "type": "StockReservedEvent",
    "source": "inventory",
    "cause": "a",
    "time": "2030-01-02T03:04:05.000002Z",
    "sequence": 2,
}
RELEASED = RESERVED | {
    "id": "c",
    "type": "StockReleasedEvent",
    "cause": "b",
    "time": "2030-01-02T03:14:05Z",
    "sequence": 3,
    "data": {"outcome": "RELEASED", "items": []},
}


@pytest.fixture(scope="module")
def page(browser: Browser, stack: ConsoleStack) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(stack.console_url)
    yield page
    context.close()


def run(page: Page, module: str, code: str, argument: Any = None) -> Any:
    """Run code with the exports of a module as `m`."""
    script = f"async (given) => {{ const m = await import('/static/{module}'); return {code}; }}"
    return page.evaluate(script, argument)


SHOW = (
    "{items: () => 'things', money: (a, c) => a + c, time: String, because: (r) => r, whole: 'it'}"
)


def test_story_is_in_the_order_of_what_happened(page: Page) -> None:
    told = run(page, "lib/story.js", f"m.tell(given, {SHOW})", [RELEASED, RESERVED, CREATED])
    assert [part["key"] for part in told] == ["story.created", "story.reserved", "story.released"]
    assert told[2]["waited"] == 600
    assert [part["kind"] for part in told] == ["start", "step", "compensation"]


def test_event_that_is_not_known_is_told_too(page: Page) -> None:
    told = run(
        page, "lib/story.js", f"m.tell(given, {SHOW})", [CREATED | {"type": "PaymentMadeEvent"}]
    )
    assert told[0]["key"] == "story.other"


def test_timeline_keeps_bursts_apart_and_waits_short(page: Page) -> None:
    drawn = run(
        page,
        "lib/timeline.js",
        "m.layout(given, ['orders', 'inventory', 'shipping'])",
        [CREATED, RESERVED, RELEASED],
    )
    first, second, third = (point["x"] for point in drawn["points"])
    assert second - first >= 46
    assert 46 < third - second <= 150
    assert [round(wait["seconds"]) for wait in drawn["waits"]] == [600]
    assert [arrow["compensates"] for arrow in drawn["arrows"]] == [False, True]
    assert drawn["lanes"] == ["orders", "inventory", "shipping"]


def test_timeline_of_an_open_order_has_a_line_for_now(page: Page) -> None:
    drawn = run(
        page,
        "lib/timeline.js",
        "m.layout(given, ['orders'], Date.parse('2030-01-02T03:05:05Z'))",
        [CREATED],
    )
    assert drawn["nowX"] > drawn["points"][0]["x"]
    assert drawn["waits"][0]["open"]


def test_metrics_are_read_with_labels_and_quantiles(page: Page) -> None:
    text = (
        "# HELP x y\n"
        'h_bucket{le="1.0"} 50.0\nh_bucket{le="2.0"} 100.0\nh_bucket{le="+Inf"} 100.0\n'
        'g{name="a\\"b\\nc"} 3.5\n'
    )
    found = run(
        page,
        "lib/metrics.js",
        "(() => { const x = m.parse(given); return [m.quantile(m.buckets(x, 'h'), 0.5),"
        " m.quantile(m.buckets(x, 'h'), 0.75), x.get('g')[0].labels.name, m.value(x, 'none'),"
        " m.quantile([], 0.5)]; })()",
        text,
    )
    assert found == [1, 1.5, 'a"b\nc', None, None]


def test_stream_is_read_however_it_is_cut(page: Page) -> None:
    text = ': hello\nid: 1\ndata: {"a":\ndata: 1}\n\nid: 2\n\nevent: restarted\ndata: x\r\n\r\n'
    code = (
        "(() => { const all = []; for (let size = 1; size < given.length; size += 3) { const found = [];"
        " const feed = m.makeParser((event) => found.push(event)); for (let i = 0; i < given.length;"
        " i += size) feed(given.slice(i, i + size)); all.push(JSON.stringify(found)); }"
        " return [...new Set(all)]; })()"
    )
    (found,) = run(page, "lib/sse.js", code, text)
    assert found == (
        '[{"id":"1","event":"message","data":"{\\"a\\":\\n1}"},{"id":"2","event":"message","data":null},'
        '{"id":"2","event":"restarted","data":"x"}]'
    )


def test_command_is_quoted_for_a_shell(page: Page) -> None:
    found = run(
        page,
        "lib/cli.js",
        "m.command(['order', 'hold', 'x y'], {reason: \"it's\", empty: '', all: true, none: null})",
    )
    assert found == "todoku order hold 'x y' --reason 'it'\\''s' --all"


def test_map_of_the_saga_follows_from_the_documents(page: Page) -> None:
    documents = [
        {"operations": {"a.sends.X": {}, "a.sends.Y": {}, "a.receives.Z": {}}},
        {"operations": {"b.receives.X": {}, "b.receives.Nobodys": {}}},
    ]
    edges = run(page, "lib/saga.js", "m.edgesOf(given)", documents)
    assert [(edge["from"], edge["to"], edge["type"]) for edge in edges] == [("a", "b", "X")]


def test_problems_are_found_in_what_the_services_tell(page: Page) -> None:
    code = (
        "import('/static/lib/metrics.js').then(({parse}) => m.findProblems({services: {"
        "orders: {metrics: parse('todoku_broker_connected 0\\ntodoku_dead_letters_parked 2\\n')},"
        "shipping: {error: {message: 'no'}, metrics: null}}}).map((each) => each.key))"
    )
    assert run(page, "lib/attention.js", f"await {code}") == [
        "attention.broker",
        "attention.letters",
        "attention.down",
    ]


TROUBLE = (
    "import('/static/lib/metrics.js').then(({parse}) => m.findProblems({at: 1e6, services: {"
    "orders: {metrics: parse('todoku_orders_held 2\\ntodoku_orders_oldest_hold_seconds 60\\n')},"
    "inventory: {error: {message: 'no'}, metrics: null, lastAt: 5000},"
    "shipping: {metrics: parse('todoku_pauses 1\\ntodoku_shipments_failing 3\\n"
    "todoku_carrier_call_limit_seconds 12\\n"
    "todoku_disk_free_bytes 1000\\ntodoku_database_available 1\\n')}}, callSeconds: 7, details: {"
    "pauses: {shipping: [{id: 'p', target: 'carrier', pausedBy: 'bob', reason: 'closed',"
    " pausedAt: '1970-01-01T00:10:00Z'}]},"
    "failing: {id: 'o', waitingFor: {lastError: 'KeyError', since: '1970-01-01T00:11:40Z'}},"
    "short: {orders: 4, products: ['a/b'], since: '1970-01-01T00:00:01Z'},"
    "held: {id: 'h', holds: [{holder: 'fraud', reason: 'new card', state: 'confirmed'}]}}}))"
)


def test_problems_say_since_when_why_and_where_to_go(page: Page) -> None:
    found = {each["key"]: each for each in run(page, "lib/attention.js", f"await {TROUBLE}")}
    assert [(key, each["since"], each["link"]) for key, each in found.items()] == [
        ("attention.down", 5_000, "system"),
        ("attention.full", None, "system"),
        ("attention.pause", 600_000, "pauses"),
        ("attention.carrier", 700_000, "orders/o"),
        ("attention.slow", None, "shipments"),
        ("attention.short", 1_000, "stock/a%2Fb"),
        ("attention.held.by", 940_000, "orders?preset=held"),
    ]
    assert found["attention.carrier"]["error"]["message"] == "KeyError"
    assert found["attention.pause"]["values"]["reason"] == "closed"
    assert found["attention.slow"]["values"]["callLimit"] == 12
    assert found["attention.carrier"]["values"]["pauseLimit"] is None  # An older shipping.


def test_problem_keeps_the_time_at_which_it_was_seen_first(page: Page) -> None:
    code = (
        "(() => { const one = {key: 'a', values: {service: 's'}}, other = {key: 'b', values: {}};"
        " const before = m.noticed([one], [], 1); return m.noticed([other, one], before, 2)"
        ".map((each) => each.noticedAt); })()"
    )
    assert run(page, "lib/attention.js", code) == [2, 1]


def test_calls_that_ended_last_are_averaged(page: Page) -> None:
    samples = [
        {"at": at * 1000, "calls": calls, "callSeconds": seconds}
        for at, calls, seconds in ((0, 10, 1), (50, 20, 2), (80, 21, 3), (100, 25, 31))
    ]
    code = "[4, 3, 1].map((count) => m.callSeconds(given.slice(0, count)))"
    assert run(page, "lib/snapshot.js", code, samples) == [7, 1, None]


def test_calls_of_the_last_minute_are_averaged_if_none_ended_lately(page: Page) -> None:
    samples = [
        {"at": at * 1000, "calls": calls, "callSeconds": seconds}
        for at, calls, seconds in ((0, 10, 1), (30, 12, 15), (59, 12, 15))
    ]
    assert run(page, "lib/snapshot.js", "m.callSeconds(given)", samples) == 7


def test_service_that_takes_connections_and_is_mute_is_given_up(page: Page) -> None:
    code = (
        "(async () => { const there = window.fetch; window.fetch = (_, {signal}) => new Promise("
        "(_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));"
        " try { await m.getText('orders', '/metrics', {secondsMax: 0.01}); }"
        " catch (error) { return [error.slug, error.service, error.seconds]; }"
        " finally { window.fetch = there; } })()"
    )
    assert run(page, "lib/api.js", f"await {code}") == ["service-unanswered", "orders", 0.01]
