"""The catalogue: versions and entity tags of products, archiving, publishing, and what is replayed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import pytest
from sqlalchemy import text

from todoku.contracts import Event, ProductChangedEvent
from todoku.database import Database, migrate
from todoku.engine import MailboxFull, Topology
from todoku.engine.messages import PendingCommand
from todoku.engine.writer import Writer
from todoku.inventory.domain import (
    PAGE,
    ArchiveProduct,
    LedgerReason,
    Product,
    ProductChanged,
    PublishCatalogue,
    SetProduct,
    Stock,
    UnknownProduct,
    archive_product,
    opening_id,
    replay_product,
    set_product,
)
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.settings import Settings
from web.edge import client, listening, running

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
SET: Final = SetProduct(product_id="p", name="Keyboard", price=5000, stock_quantity=3)
EMPTY: Final = Stock(products={})

inventory = inventory_service(Settings())


def made(at: datetime = NOW) -> tuple[Stock, ProductChangedEvent]:
    """Return a new product, and the event that told of it."""
    stock, events = set_product(EMPTY, SET, at)
    return Stock(products=stock.products), told(events)


def told(events: list[Event]) -> ProductChangedEvent:
    (event,) = events
    assert isinstance(event, ProductChangedEvent)
    return event


def product_of(stock: Stock) -> Product:
    return stock.products["p"]


class TestVersions:
    def test_new_product_is_published_with_its_opening_stock(self) -> None:
        stock, event = made()
        assert event == ProductChangedEvent(
            product_id="p",
            version=product_of(stock).version,
            name="Keyboard",
            price=5000,
            currency="JPY",
            changed_at=NOW,
            opening_stock=3,
        )

    def test_change_has_a_higher_version_and_is_published(self) -> None:
        stock, first = made()
        command = SetProduct(product_id="p", name="Keyboard", price=6000)
        changed, events = set_product(stock, command, LATER)
        event = told(events)
        assert (event.price, event.changed_at) == (6000, LATER)
        assert event.version == product_of(changed).version > first.version
        assert event.opening_stock is msgspec.UNSET
        assert event.fact != first.fact

    @pytest.mark.parametrize("at", [NOW, NOW - timedelta(days=400)])
    def test_version_grows_while_the_clock_stands_still_or_is_set_back(self, at: datetime) -> None:
        stock, first = made()
        _, events = set_product(stock, SetProduct(product_id="p", name="n", price=1), at)
        assert told(events).version == first.version + 1

    def test_product_that_is_created_again_has_a_higher_version_than_the_lost_one(self) -> None:
        stock, _ = made()
        for _ in range(3):
            stock, events = set_product(stock, SetProduct(product_id="p", name="n", price=1), NOW)
        _, again = made(LATER)
        assert again.version > told(events).version

    @pytest.mark.parametrize("tags", [('"1"',), (), ('"1"', '"2"')])
    @pytest.mark.parametrize("command", [SET, ArchiveProduct(product_id="p")])
    def test_change_of_another_version_than_the_expected_one_is_refused(
        self, tags: tuple[str, ...], command: Any
    ) -> None:
        stock, _ = made()
        decide: Any = set_product if isinstance(command, SetProduct) else archive_product
        with pytest.raises(ProductChanged, match=product_of(stock).etag):
            decide(stock, msgspec.structs.replace(command, if_match=tags), LATER)

    @pytest.mark.parametrize("other", [(), ('"7"',)])
    def test_change_of_the_expected_version_is_accepted(self, other: tuple[str, ...]) -> None:
        stock, _ = made()
        command = msgspec.structs.replace(
            SET, price=1, if_match=(*other, product_of(stock).etag), stock_quantity=None
        )
        assert product_of(set_product(stock, command, LATER)[0]).price == 1

    def test_star_matches_every_product_but_none_that_does_not_exist(self) -> None:
        stock, _ = made()
        command = msgspec.structs.replace(SET, if_match=("*",), stock_quantity=None)
        assert set_product(stock, command, LATER)[1]
        with pytest.raises(ProductChanged, match="no product"):
            set_product(EMPTY, command, LATER)

    def test_stock_movements_keep_version_and_entity_tag(self) -> None:
        stock, _ = made()
        moved = product_of(stock).moved(LATER, on_hand=1)
        assert (moved.version, moved.etag) == (product_of(stock).version, product_of(stock).etag)


class TestArchive:
    def test_archived_product_is_published_as_archived_and_back(self) -> None:
        stock, _ = made()
        archived, events = archive_product(stock, ArchiveProduct(product_id="p"), LATER)
        assert told(events).archived
        command = ArchiveProduct(product_id="p", archived=False)
        back, events = archive_product(archived, command, LATER)
        assert not told(events).archived
        assert product_of(back).version > product_of(archived).version

    def test_archiving_again_changes_nothing(self) -> None:
        stock, _ = made()
        archived, _ = archive_product(stock, ArchiveProduct(product_id="p"), LATER)
        again = archive_product(archived, ArchiveProduct(product_id="p"), LATER)
        assert again == (archived, [])

    def test_setting_an_archived_product_leaves_it_archived(self) -> None:
        stock, _ = made()
        archived, _ = archive_product(stock, ArchiveProduct(product_id="p"), LATER)
        set_again, _ = set_product(archived, SetProduct(product_id="p", name="n", price=1), LATER)
        assert product_of(set_again).archived

    def test_unknown_product_cannot_be_archived(self) -> None:
        with pytest.raises(UnknownProduct):
            archive_product(EMPTY, ArchiveProduct(product_id="p"), NOW)


class TestReplay:
    def test_lost_product_comes_back_with_its_opening_stock(self) -> None:
        stock, event = made()
        restored, events = replay_product(EMPTY, event, NOW)
        assert restored.products == stock.products
        assert [(entry.reason, entry.quantity) for entry in restored.entries] == [
            (LedgerReason.OPENING, 3)
        ]
        assert events == []

    def test_lost_change_comes_back_and_the_stock_stays(self) -> None:
        stock, _ = made()
        changed, events = set_product(stock, SetProduct(product_id="p", name="n", price=9), LATER)
        reserved = Stock(products={"p": product_of(stock).moved(NOW, reserved=2)})
        restored, _ = replay_product(reserved, told(events), LATER)
        assert product_of(restored) == product_of(changed).moved(LATER, reserved=2)
        assert restored.entries == ()

    def test_change_that_the_database_has_changes_nothing(self) -> None:
        stock, first = made()
        changed, events = set_product(stock, SetProduct(product_id="p", name="n", price=9), LATER)
        known = msgspec.structs.replace(changed, adjusted=frozenset({opening_id("p")}))
        for event in (first, told(events)):
            assert replay_product(known, event, LATER) == (known, [])

    def test_opening_stock_comes_back_once_in_any_sequence_of_the_events(self) -> None:
        """Deliveries may overtake each other, so a later version may create the product anew."""
        stock, first = made()
        _, events = set_product(stock, SetProduct(product_id="p", name="n", price=9), LATER)
        later, _ = replay_product(EMPTY, told(events), LATER)
        assert (product_of(later).on_hand, later.entries) == (0, ())
        both, _ = replay_product(later, first, NOW)
        assert (product_of(both).on_hand, product_of(both).price) == (3, 9)
        assert [entry.quantity for entry in both.entries] == [3]
        known = Stock(products=both.products, adjusted=frozenset({opening_id("p")}))
        assert replay_product(known, first, LATER) == (known, [])


class TestPublication:
    def writer(self, products: int) -> Writer:
        """Return the writer of a database with so many products."""
        database = Database.in_memory()
        migrate(database, "todoku.inventory")
        writer = Writer(inventory, database, Topology([inventory]), owner="test")
        ids = [f"p{number:04}" for number in range(products)]
        commands = [msgspec.structs.replace(SET, product_id=product_id) for product_id in ids]
        writer.step([PendingCommand(command, lambda _: None) for command in commands], NOW, 0)
        self.database = database
        return writer

    def published(self, writer: Writer, now: datetime) -> list[str]:
        """Return the keys of the events that were published by the work that is due."""
        before = writer.position
        assert len(writer.step([], now, 0).published) == writer.position - before
        with self.database.read() as connection:
            found = connection.execute(
                text("SELECT body FROM outbox WHERE position > :before"), {"before": before}
            )
            return [msgspec.json.decode(body)["subject"] for (body,) in found]

    def test_every_product_is_published_once_in_bounded_batches(self) -> None:
        writer = self.writer(2 * PAGE + 1)
        with self.database.transaction() as connection:
            connection.execute(text("DELETE FROM outbox"))
        writer.step([PendingCommand(PublishCatalogue(), lambda _: None)], NOW, 0)
        pages = [self.published(writer, NOW + timedelta(seconds=n)) for n in range(1, 6)]
        assert [len(page) for page in pages] == [PAGE, PAGE, 1, 0, 0]
        assert len({key for page in pages for key in page}) == 2 * PAGE + 1

    def test_publication_that_is_asked_for_again_begins_anew(self) -> None:
        writer = self.writer(PAGE + 1)
        with self.database.transaction() as connection:
            connection.execute(text("DELETE FROM outbox"))
        command = PendingCommand(PublishCatalogue(), lambda _: None)
        writer.step([command], NOW, 0)
        first = self.published(writer, NOW + timedelta(seconds=1))
        with self.database.transaction() as connection:
            connection.execute(text("DELETE FROM outbox"))
        writer.step([command], NOW + timedelta(seconds=1), 0)
        assert self.published(writer, NOW + timedelta(seconds=2)) == first
        assert len(self.published(writer, NOW + timedelta(seconds=3))) == 1

    def test_products_from_before_versions_are_published_after_the_upgrade(self) -> None:
        database = Database.in_memory()
        migrate(database, "todoku.inventory")
        with database.transaction() as connection:
            connection.execute(text("DELETE FROM catalogue_publications"))
            connection.execute(
                text(
                    "INSERT INTO products (id, name, price, currency, stock_quantity,"
                    " reserved_quantity, created_at, updated_at) VALUES ('p', 'n', 7, 'EUR', 0, 0, 1, 2)"
                )
            )
            connection.execute(
                text("INSERT INTO catalogue_publications VALUES ('catalogue', '', 0)")
            )
        self.database = database
        writer = Writer(inventory, database, Topology([inventory]), owner="test")
        assert self.published(writer, NOW) == ["p"]
        assert self.published(writer, LATER) == []


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client of inventory with a real engine and database."""
    async with running(inventory, inventory_api) as app, client(app) as http:
        yield http


KEYBOARD: Final = {"name": "Keyboard", "price": 5000, "stockQuantity": 10}


def assert_problem(reply: httpx.Response, status: int, slug: str) -> None:
    assert (reply.status_code, reply.json()["type"]) == (status, f"/problems/{slug}")


@pytest.mark.anyio
class TestHttp:
    async def test_entity_tag_counts_changes_of_the_catalogue_only(
        self, http: httpx.AsyncClient
    ) -> None:
        created = await http.put("/products/p", json=KEYBOARD)
        restocked = await http.post("/products/p/restock", json={"quantity": 1})
        shown = await http.get("/products/p")
        assert created.headers["etag"] == restocked.headers["etag"] == shown.headers["etag"]
        changed = await http.put("/products/p", json={"name": "Keyboard", "price": 6000})
        assert changed.headers["etag"] != created.headers["etag"]
        assert changed.headers["etag"] == f'"{changed.json()["version"]}"'

    async def test_change_that_lost_against_another_is_refused(
        self, http: httpx.AsyncClient
    ) -> None:
        seen = {"If-Match": (await http.put("/products/p", json=KEYBOARD)).headers["etag"]}
        cheaper = {"name": "Keyboard", "price": 4000}
        won = await http.put("/products/p", json=cheaper, headers=seen)
        assert won.status_code == 200
        lost = await http.put("/products/p", json={"name": "Keyboard", "price": 9}, headers=seen)
        assert_problem(lost, 412, "product-changed")
        assert won.headers["etag"] in lost.json()["detail"]
        assert_problem(await http.post("/products/p/archive", headers=seen), 412, "product-changed")
        assert (await http.get("/products/p")).json()["price"] == 4000

    @pytest.mark.parametrize("tags", ["W/{}", '"a,b", W/{}', '"1"'])
    async def test_weak_and_other_tags_do_not_match(
        self, http: httpx.AsyncClient, tags: str
    ) -> None:
        etag = (await http.put("/products/p", json=KEYBOARD)).headers["etag"]
        headers = {"If-Match": tags.format(etag)}
        reply = await http.put("/products/p", json={"name": "n", "price": 1}, headers=headers)
        assert_problem(reply, 412, "product-changed")

    @pytest.mark.parametrize("tags", ["{}", '"1", {}', "*", '  {} ,"2"'])
    async def test_one_of_several_tags_and_the_star_match(
        self, http: httpx.AsyncClient, tags: str
    ) -> None:
        etag = (await http.put("/products/p", json=KEYBOARD)).headers["etag"]
        headers = {"If-Match": tags.format(etag)}
        reply = await http.put("/products/p", json={"name": "n", "price": 1}, headers=headers)
        assert reply.status_code == 200

    @pytest.mark.parametrize("value", ["", "1767605400000", '"1', '"1" "2"', "*, *", 'w/"1"'])
    async def test_header_that_is_no_list_of_tags_is_invalid(
        self, http: httpx.AsyncClient, value: str
    ) -> None:
        reply = await http.put("/products/p", json=KEYBOARD, headers={"If-Match": value})
        assert_problem(reply, 400, "invalid-if-match")

    async def test_product_is_archived_and_taken_back(self, http: httpx.AsyncClient) -> None:
        await http.put("/products/p", json=KEYBOARD)
        archived = await http.post("/products/p/archive")
        assert (archived.status_code, archived.json()["archived"]) == (200, True)
        assert (await http.get("/products")).json()["items"][0]["archived"] is True
        back = await http.post(
            "/products/p/unarchive", headers={"If-Match": archived.headers["etag"]}
        )
        assert back.json()["archived"] is False
        assert_problem(await http.post("/products/ghost/archive"), 404, "unknown-product")

    async def test_publishing_tells_how_many_products_there_are(
        self, http: httpx.AsyncClient
    ) -> None:
        await http.put("/products/p", json=KEYBOARD)
        reply = await http.post("/catalogue/publish")
        assert (reply.status_code, reply.json()) == (202, {"products": 1})


IDS: Final = (
    "a/b",
    "x/archive",
    "../a",
    "a b",
    "キーボード 1/2",
    "%2F",
    "a?b#c&d=e",
    "届" * 255,
    "+",
    "\\",
)


@pytest.mark.anyio
@pytest.mark.parametrize("product_id", IDS)
async def test_product_id_is_any_text_percent_encoded_in_addresses(
    http: httpx.AsyncClient, product_id: str
) -> None:
    address = f"/products/{quote(product_id, safe='')}"
    created = await http.put(address, json=KEYBOARD)
    assert (created.status_code, created.headers["location"]) == (201, address)
    assert created.json()["id"] == product_id
    for path in (address, f"{address}/"):
        assert (await http.get(path)).json()["id"] == product_id
    assert (await http.post(f"{address}/restock", json={"quantity": 1})).status_code == 200
    assert (await http.post(f"{address}/archive")).json()["archived"] is True
    page = (await http.get("/products", params={"limit": 1})).json()
    assert [each["id"] for each in page["items"]] == [product_id]


@pytest.mark.anyio
async def test_pages_go_on_behind_the_longest_id(http: httpx.AsyncClient) -> None:
    ids = ["届" * 254 + last for last in "あいう"]
    for product_id in ids:
        await http.put(f"/products/{quote(product_id, safe='')}", json=KEYBOARD)
    first = (await http.get("/products", params={"limit": 2})).json()
    rest = (await http.get("/products", params={"cursor": first["nextCursor"]})).json()
    assert [each["id"] for each in (*first["items"], *rest["items"])] == ids


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", ["/products/", "/products/%2E", "/products/a%00b", "/products/a%2Fb/no"]
)
async def test_address_of_no_product_is_unknown(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (200, 404)
    assert (await http.put(path, json=KEYBOARD)).status_code in (400, 404, 405)


@pytest.mark.anyio
async def test_encoded_slash_survives_the_server() -> None:
    async with (
        running(inventory, inventory_api) as app,
        listening(app) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}") as http,
    ):
        created = await http.put("/products/x%2farchive", json=KEYBOARD)
        assert (created.status_code, created.json()["id"]) == (201, "x/archive")
        assert (await http.get("/products/x%2Farchive")).json()["id"] == "x/archive"
        assert (await http.get("/products/x/archive")).status_code == 405


def test_product_that_is_entered_before_all_is_replayed_is_created_and_not_changed() -> None:
    """The next version of a product that was replayed in part may be one that was published."""
    service = inventory_service(Settings())
    decide = service.command_handlers[SetProduct]
    early = service.before_replay(SET)
    created, events = decide(Stock(products={}), early, NOW)
    assert created.products["p"].on_hand == 3
    assert len(events) == 1
    with pytest.raises(MailboxFull):
        decide(created, early, LATER)
    changed, _ = decide(created, SET, LATER)
    assert changed.products["p"].version > created.products["p"].version
