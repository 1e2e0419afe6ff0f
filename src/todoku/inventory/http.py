"""Stock over HTTP: look at products, set them up, put more pieces into the house."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from todoku.inventory.domain import (
    Product,
    Restock,
    SetProduct,
    Stock,
    StockNotSettable,
    TooMuchStock,
    UnknownProduct,
)
from todoku.inventory.store import find_product, list_products
from todoku.web import Answer, Api, Backend, Body, Call, Operation, Problem, Reply
from todoku.web.exchange import invalid_parameter
from todoku.web.fields import (
    ALLOWED,
    PRODUCT_ID_PATTERN,
    Currency,
    Cursor,
    Name,
    Note,
    PageLimit,
    Price,
    ProductId,
    Quantity,
    StockQuantity,
    is_product_id,
)
from todoku.web.paging import DEFAULT_LIMIT, from_cursor, next_page, to_cursor
from todoku.web.problems import (
    DATABASE_UNAVAILABLE,
    STOCK_NOT_SETTABLE,
    TOO_MUCH_STOCK,
    UNKNOWN_PRODUCT,
)


class ProductChange(Body, frozen=True, kw_only=True):
    """What a product is called and costs. `stockQuantity` is the opening stock of a new product; of
    an existing one it may only repeat what is there."""

    name: Name
    price: Price
    currency: Currency | None = None
    stock_quantity: StockQuantity | None = None


class Delivery(Body, frozen=True, kw_only=True):
    """Pieces that have come into the house."""

    quantity: Quantity
    reason: Note | None = None


class ProductView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product and its stock: `stockQuantity` pieces are on hand, `reservedQuantity` of them set
    aside for orders, and `availableQuantity` can still be promised."""

    id: str
    name: str
    price: int
    currency: str
    stock_quantity: int
    reserved_quantity: int
    available_quantity: int
    updated_at: datetime


class ProductPage(msgspec.Struct, frozen=True, rename="camel"):
    """Products by id; `nextCursor` leads to further ones, and is null on the last page."""

    items: list[ProductView]
    next_cursor: str | None


class ProductQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Which products are listed."""

    limit: PageLimit = DEFAULT_LIMIT
    cursor: Cursor | UnsetType = UNSET


def inventory_api(backend: Backend) -> Api:
    """What the inventory service offers."""
    routes = ProductRoutes(backend)
    product_id = {"productId": ProductId}
    return Api(
        title="Todoku inventory",
        description=ABOUT,
        refusals={
            UnknownProduct: UNKNOWN_PRODUCT,
            StockNotSettable: STOCK_NOT_SETTABLE,
            TooMuchStock: TOO_MUCH_STOCK,
        },
        operations=[
            Operation(
                id="listProducts",
                method="GET",
                path="/products",
                summary="List products by id",
                handle=routes.list,
                query=ProductQuery,
                answers=[
                    Answer(
                        status=200,
                        meaning="A page of products.",
                        content=ProductPage,
                        headers={"Link": 'The next page, as `rel="next"`; none on the last.'},
                    )
                ],
                problems=[DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="getProduct",
                method="GET",
                path="/products/{productId}",
                path_parameters=product_id,
                summary="Look at a product and its stock",
                handle=routes.show,
                answers=[Answer(status=200, meaning="The product.", content=ProductView)],
                problems=[UNKNOWN_PRODUCT, DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="setProduct",
                method="PUT",
                path="/products/{productId}",
                path_parameters=product_id,
                summary="Create a product, or change its name and price",
                handle=routes.set,
                body=ProductChange,
                examples={"a new product": EXAMPLE_PRODUCT},
                answers=[
                    Answer(status=200, meaning="The product was changed.", content=ProductView),
                    Answer(
                        status=201,
                        meaning="The product was created.",
                        content=ProductView,
                        headers={"Location": "Where the product is from now on."},
                    ),
                ],
                problems=[STOCK_NOT_SETTABLE],
            ),
            Operation(
                id="restockProduct",
                method="POST",
                path="/products/{productId}/restock",
                path_parameters=product_id,
                summary="Put more pieces of a product into the house",
                handle=routes.restock,
                body=Delivery,
                examples={"a delivery": {"quantity": 10, "reason": "Delivery 4711"}},
                answers=[
                    Answer(status=200, meaning="The product afterwards.", content=ProductView)
                ],
                problems=[UNKNOWN_PRODUCT, TOO_MUCH_STOCK],
            ),
        ],
    )


class ProductRoutes:
    """The routes: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        query: ProductQuery = call.query
        products = await self._backend.read(
            list_products,
            after=from_cursor(query.cursor, is_product_id) or "",
            limit=query.limit + 1,
        )
        page = products[: query.limit]
        cursor = to_cursor(page[-1].id) if len(products) > len(page) else None
        return Reply(
            200,
            ProductPage([_view(product) for product in page], cursor),
            next_page("/products", query, cursor),
        )

    async def show(self, call: Call) -> Reply:
        product_id = _product_id(call)
        product = await self._backend.read(find_product, product_id)
        if product is None:
            raise _unknown_product(product_id)
        return Reply(200, _view(product))

    async def set(self, call: Call) -> Reply:
        product_id = call.path["productId"]
        if not is_product_id(product_id):
            raise invalid_parameter("productId", f"Must be {ALLOWED[PRODUCT_ID_PATTERN]}.")
        change: ProductChange = call.body
        address = f"/products/{product_id}"
        stock: Stock = await self._backend.ask(
            SetProduct(
                product_id=product_id,
                name=change.name,
                price=change.price,
                currency=change.currency,
                stock_quantity=change.stock_quantity,
            ),
            traceparent=call.traceparent,
            find_out=f"Look at GET {address}; sending the same again does no harm.",
        )
        view = _view(stock.products[product_id])
        # Only creating a product enters something, its opening stock, in the ledger.
        return Reply(201, view, {"Location": address}) if stock.entries else Reply(200, view)

    async def restock(self, call: Call) -> Reply:
        product_id = _product_id(call)
        delivery: Delivery = call.body
        stock: Stock = await self._backend.ask(
            Restock(product_id=product_id, quantity=delivery.quantity, note=delivery.reason),
            traceparent=call.traceparent,
            find_out=f"Compare stockQuantity in GET /products/{product_id} before sending it again.",
        )
        return Reply(200, _view(stock.products[product_id]))


def _product_id(call: Call) -> str:
    """The product that the path names. What cannot be an id is unknown."""
    product_id = call.path["productId"]
    if not is_product_id(product_id):
        raise _unknown_product(product_id)
    return product_id


def _unknown_product(product_id: str) -> Problem:
    return Problem(UNKNOWN_PRODUCT, f"There is no product {product_id!r}: see GET /products.")


def _view(product: Product) -> ProductView:
    return ProductView(
        id=product.id,
        name=product.name,
        price=product.price,
        currency=product.currency,
        stock_quantity=product.on_hand,
        reserved_quantity=product.reserved,
        available_quantity=product.available,
        updated_at=product.updated_at,
    )


ABOUT = """\
Knows what is in stock, sets it aside for orders, and ships or releases it.

Stock changes only through a ledger: by its opening, by restocking and by shipping. Prices are in
minor units of an ISO 4217 currency, times are UTC. Every error is an RFC 9457 problem whose `type`
is the address of a page about it. Parameters and fields that are not known are refused."""

EXAMPLE_PRODUCT: dict[str, Any] = {"name": "Super Keyboard", "price": 5000, "stockQuantity": 10}
