"""HTTP operations of the inventory service."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from todoku.inventory.domain import (
    ArchiveProduct,
    Product,
    ProductChanged,
    PublishCatalogue,
    Restock,
    SetProduct,
    Stock,
    StockNotSettable,
    TooMuchStock,
    UnknownProduct,
)
from todoku.inventory.problems import (
    PRODUCT_CHANGED,
    STOCK_NOT_SETTABLE,
    TOO_MUCH_STOCK,
    UNKNOWN_PRODUCT,
)
from todoku.inventory.store import count_products, find_product, list_products
from todoku.web import Api, Backend, Body, Call, Operation, Problem, Reply, SuccessResponse
from todoku.web.fields import (
    ALLOWED,
    PRODUCT_ID_PATTERN,
    Currency,
    Name,
    Note,
    Price,
    ProductId,
    Quantity,
    StockQuantity,
    is_product_id,
)
from todoku.web.paging import PageQuery, from_cursor, page_reply, page_response
from todoku.web.problems import DATABASE_UNAVAILABLE, OUTCOME_UNKNOWN, OVERLOADED
from todoku.web.query import invalid_parameter


class ProductChange(Body, frozen=True, kw_only=True):
    """Name and price of a product. `stockQuantity` is the initial stock of a new product; for an
    existing one it must be omitted or equal to the stock on hand."""

    name: Name
    price: Price
    currency: Currency | None = None
    stock_quantity: StockQuantity | None = None


class NewStock(Body, frozen=True, kw_only=True):
    """Pieces to add to the stock."""

    quantity: Quantity
    reason: Note | None = None


class ProductView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product and its stock: `stockQuantity` pieces are on hand, `reservedQuantity` of them are
    reserved for orders, and `availableQuantity` can still be ordered. `version` grows whenever the name, the
    price or the currency is set, or the product is archived, which is `archived` then and sold no longer."""

    id: str
    name: str
    price: int
    currency: str
    stock_quantity: int
    reserved_quantity: int
    available_quantity: int
    updated_at: datetime
    version: int
    archived: bool


class ProductPage(msgspec.Struct, frozen=True, rename="camel"):
    """Products by id; `nextCursor` is null on the last page."""

    items: list[ProductView]
    next_cursor: str | None


class Publishing(msgspec.Struct, frozen=True):
    """How many products are being published."""

    products: int


class ProductQuery(PageQuery, frozen=True, kw_only=True):
    """Page of a list of products."""


def inventory_api(backend: Backend) -> Api:
    """Return the API of the inventory service."""
    routes = ProductRoutes(backend)
    product_id = {"productId": ProductId}
    return Api(
        title="Todoku inventory",
        description=ABOUT,
        refusals={
            UnknownProduct: UNKNOWN_PRODUCT,
            StockNotSettable: STOCK_NOT_SETTABLE,
            TooMuchStock: TOO_MUCH_STOCK,
            ProductChanged: PRODUCT_CHANGED,
        },
        operations=[
            Operation(
                id="listProducts",
                method="GET",
                path="/products",
                summary="List products by id",
                handle=routes.list,
                query=ProductQuery,
                responses=[page_response("A page of products.", ProductPage)],
                problems=[DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="getProduct",
                method="GET",
                path="/products/{productId}",
                path_parameters=product_id,
                summary="Get a product and its stock",
                handle=routes.show,
                responses=[
                    SuccessResponse(
                        status=200,
                        description="The product.",
                        content=ProductView,
                        headers=ETAG,
                    )
                ],
                problems=[UNKNOWN_PRODUCT, DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="setProduct",
                method="PUT",
                path="/products/{productId}",
                path_parameters=product_id,
                summary="Create a product, or change its name and price",
                description=ABOUT_SETTING,
                handle=routes.set,
                body=ProductChange,
                examples={"a new product": EXAMPLE_PRODUCT},
                responses=[
                    SuccessResponse(
                        status=200,
                        description="The product was changed.",
                        content=ProductView,
                        headers=ETAG,
                    ),
                    SuccessResponse(
                        status=201,
                        description="The product was created.",
                        content=ProductView,
                        headers={"Location": "The path of the product.", **ETAG},
                    ),
                ],
                problems=[STOCK_NOT_SETTABLE, PRODUCT_CHANGED],
                conditional=True,
            ),
            *(_archiving(routes, archived) for archived in (True, False)),
            Operation(
                id="publishCatalogue",
                method="POST",
                path="/catalogue/publish",
                summary="Publish every product again",
                description=ABOUT_PUBLISHING,
                handle=routes.publish,
                responses=[
                    SuccessResponse(
                        status=202,
                        description="The products are being published.",
                        content=Publishing,
                    )
                ],
                problems=[OVERLOADED, OUTCOME_UNKNOWN, DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="restockProduct",
                method="POST",
                path="/products/{productId}/restock",
                path_parameters=product_id,
                summary="Add stock of a product",
                handle=routes.restock,
                body=NewStock,
                examples={"a delivery": {"quantity": 10, "reason": "Delivery 4711"}},
                responses=[
                    SuccessResponse(
                        status=200,
                        description="The product with its new stock.",
                        content=ProductView,
                    )
                ],
                problems=[UNKNOWN_PRODUCT, TOO_MUCH_STOCK],
            ),
        ],
    )


def _archiving(routes: "ProductRoutes", archived: bool) -> Operation:
    """Return the operation that archives a product, or that takes it back."""
    name = "archive" if archived else "unarchive"
    return Operation(
        id=f"{name}Product",
        method="POST",
        path=f"/products/{{productId}}/{name}",
        path_parameters={"productId": ProductId},
        summary="Archive a product" if archived else "Take an archived product back",
        description=ABOUT_ARCHIVING,
        handle=routes.archive if archived else routes.unarchive,
        responses=[
            SuccessResponse(
                status=200, description="The product.", content=ProductView, headers=ETAG
            )
        ],
        problems=[
            UNKNOWN_PRODUCT,
            PRODUCT_CHANGED,
            OVERLOADED,
            OUTCOME_UNKNOWN,
            DATABASE_UNAVAILABLE,
        ],
        conditional=True,
    )


class ProductRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        query: ProductQuery = call.query
        products = await self._backend.read(
            list_products,
            after=from_cursor(query, is_product_id) or "",
            limit=query.rows_max,
        )
        return page_reply(
            ProductPage,
            "/products",
            query,
            products,
            key=lambda product: product.id,
            view=_view,
        )

    async def show(self, call: Call) -> Reply:
        product_id = _product_id(call)
        product = await self._backend.read(find_product, product_id)
        if product is None:
            raise _unknown_product(product_id)
        return _reply(product)

    async def set(self, call: Call) -> Reply:
        product_id = call.path["productId"]
        if not is_product_id(product_id):
            raise invalid_parameter("productId", f"Must be {ALLOWED[PRODUCT_ID_PATTERN]}.")
        change: ProductChange = call.body
        address = f"/products/{product_id}"
        stock: Stock = await self._backend.execute(
            SetProduct(
                product_id=product_id,
                name=change.name,
                price=change.price,
                currency=change.currency,
                stock_quantity=change.stock_quantity,
                if_match=call.if_match,
            ),
            context=call.context,
            find_out=f"See GET {address}; the request can safely be repeated.",
        )
        product = stock.products[product_id]
        # Only a new product has a ledger entry: its initial stock.
        return _reply(product, 201, {"Location": address}) if stock.entries else _reply(product)

    async def archive(self, call: Call) -> Reply:
        return await self._archive(call, archived=True)

    async def unarchive(self, call: Call) -> Reply:
        return await self._archive(call, archived=False)

    async def _archive(self, call: Call, *, archived: bool) -> Reply:
        product_id = _product_id(call)
        stock: Stock = await self._backend.execute(
            ArchiveProduct(product_id=product_id, archived=archived, if_match=call.if_match),
            context=call.context,
            find_out=f"See `archived` in GET /products/{product_id}; the request can safely be repeated.",
        )
        return _reply(stock.products[product_id])

    async def publish(self, call: Call) -> Reply:
        await self._backend.execute(
            PublishCatalogue(), context=call.context, find_out="The request can safely be repeated."
        )
        return Reply(202, Publishing(await self._backend.read(count_products)))

    async def restock(self, call: Call) -> Reply:
        product_id = _product_id(call)
        delivery: NewStock = call.body
        stock: Stock = await self._backend.execute(
            Restock(product_id=product_id, quantity=delivery.quantity, note=delivery.reason),
            context=call.context,
            find_out=f"Compare stockQuantity in GET /products/{product_id} before you repeat the request.",
        )
        return _reply(stock.products[product_id])


def _reply(product: Product, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, _view(product), {"ETag": product.etag, **(headers or {})})


def _product_id(call: Call) -> str:
    """Return the product's id from the path. Raises `Problem` if it cannot be an id."""
    product_id = call.path["productId"]
    if not is_product_id(product_id):
        raise _unknown_product(product_id)
    return product_id


def _unknown_product(product_id: str) -> Problem:
    return Problem(UNKNOWN_PRODUCT, f"No product has the id {product_id!r}: see GET /products.")


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
        version=product.version,
        archived=product.archived,
    )


ETAG: Final = {"ETag": "The version of the product; stock movements do not change it."}


ABOUT = """\
Reserves stock for orders, and deducts or releases it.

Stock changes only through a ledger: initial stock, restocking and shipping. Prices are in
minor units of an ISO 4217 currency, times are UTC. Every error is an RFC 9457 problem whose `type`
is the address of a page about it. Unknown parameters and fields are refused."""

ABOUT_SETTING = """\
With `If-Match`, nothing is changed unless the product still has this `ETag`. Every change is published, so
that orders knows the price."""

ABOUT_ARCHIVING = """\
An archived product is in no new order that is placed with prices of the catalogue. Its stock stays, and
orders that were accepted go on."""

ABOUT_PUBLISHING = """\
Every change of a product is published anyway. This publishes all products, in batches: for a service that
has none of them, because it is new or has lost its database."""

EXAMPLE_PRODUCT: dict[str, Any] = {"name": "Super Keyboard", "price": 5000, "stockQuantity": 10}
