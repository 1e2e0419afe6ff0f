"""HTTP operations of the inventory service."""

from typing import Any

import msgspec

from todoku.identity import scopes
from todoku.inventory.domain import (
    ArchiveProduct,
    ProductChanged,
    PublishCatalogue,
    SetProduct,
    Stock,
    StockNotSettable,
    UnknownProduct,
    address_of,
)
from todoku.inventory.persons import INVENTORY_PERSONS
from todoku.inventory.problems import (
    PRODUCT_CHANGED,
    STOCK_NOT_SETTABLE,
    UNKNOWN_PRODUCT,
)
from todoku.inventory.stock_http import STOCK_REFUSALS, stock_operations
from todoku.inventory.store import count_products, find_product, list_products
from todoku.inventory.views import (
    ETAG,
    ProductView,
    product_id_of,
    product_reply,
    unknown_product,
    view_of,
)
from todoku.web import Api, Backend, Body, Call, Operation, Reply, SuccessResponse
from todoku.web.fields import (
    ALLOWED,
    PRODUCT_ID_PATTERN,
    Currency,
    Name,
    Price,
    ProductId,
    StockQuantity,
    is_product_id,
)
from todoku.web.paging import PageQuery, from_cursor, page_reply, page_response
from todoku.web.persons import person_operations
from todoku.web.problems import DATABASE_UNAVAILABLE
from todoku.web.query import invalid_parameter


class ProductChange(Body, frozen=True, kw_only=True):
    """Name and price of a product. `stockQuantity` is the initial stock of a new product; for an
    existing one it must be omitted or equal to the stock on hand."""

    name: Name
    price: Price
    currency: Currency | None = None
    stock_quantity: StockQuantity | None = None


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
            ProductChanged: PRODUCT_CHANGED,
            **STOCK_REFUSALS,
        },
        operations=[
            *person_operations(backend, INVENTORY_PERSONS),
            Operation(
                id="listProducts",
                method="GET",
                scope=scopes.PRODUCTS_READ,
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
                scope=scopes.PRODUCTS_READ,
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
                scope=scopes.PRODUCTS_WRITE,
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
                scope=scopes.REPAIR,
                path="/catalogue/publish",
                costly=True,
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
                problems=[DATABASE_UNAVAILABLE],
            ),
            *stock_operations(backend),
        ],
    )


def _archiving(routes: "ProductRoutes", archived: bool) -> Operation:
    """Return the operation that archives a product, or that takes it back."""
    name = "archive" if archived else "unarchive"
    return Operation(
        id=f"{name}Product",
        method="POST",
        scope=scopes.PRODUCTS_WRITE,
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
        problems=[UNKNOWN_PRODUCT, PRODUCT_CHANGED],
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
            view=view_of,
        )

    async def show(self, call: Call) -> Reply:
        product_id = product_id_of(call)
        product = await self._backend.read(find_product, product_id)
        if product is None:
            raise unknown_product(product_id)
        return product_reply(product)

    async def set(self, call: Call) -> Reply:
        product_id = call.path["productId"]
        if not is_product_id(product_id):
            raise invalid_parameter("productId", f"Must be {ALLOWED[PRODUCT_ID_PATTERN]}.")
        change: ProductChange = call.body
        address = address_of(product_id)
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
        return (
            product_reply(product, 201, {"Location": address})
            if stock.entries
            else product_reply(product)
        )

    async def archive(self, call: Call) -> Reply:
        return await self._archive(call, archived=True)

    async def unarchive(self, call: Call) -> Reply:
        return await self._archive(call, archived=False)

    async def _archive(self, call: Call, *, archived: bool) -> Reply:
        product_id = product_id_of(call)
        stock: Stock = await self._backend.execute(
            ArchiveProduct(product_id=product_id, archived=archived, if_match=call.if_match),
            context=call.context,
            find_out=f"See `archived` in GET {address_of(product_id)}; the request can safely be repeated.",
        )
        return product_reply(stock.products[product_id])

    async def publish(self, call: Call) -> Reply:
        await self._backend.execute(
            PublishCatalogue(), context=call.context, find_out="The request can safely be repeated."
        )
        return Reply(202, Publishing(await self._backend.read(count_products)))


ABOUT = """\
Reserves stock for orders, and deducts or releases it.

Stock changes only through a ledger: initial stock, restocking, corrections and shipping. Prices are in
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
