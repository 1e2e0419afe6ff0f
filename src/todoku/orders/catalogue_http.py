"""HTTP operations that show the copy of the catalogue."""

from datetime import datetime
from functools import partial
from urllib.parse import quote

import msgspec

from todoku.identity import scopes
from todoku.orders.catalogue import CatalogueEntry
from todoku.orders.problems import NOT_IN_CATALOGUE
from todoku.orders.store import catalogue
from todoku.web import Backend, Call, Operation, Problem, Reply, SuccessResponse
from todoku.web.fields import ProductId, is_product_id
from todoku.web.paging import PageQuery, from_cursor, page_reply, page_response
from todoku.web.problems import DATABASE_UNAVAILABLE


class CatalogueEntryView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What this service knows of a product of the catalogue: `price` is what new orders pay for a piece, in
    minor units of `currency`. Of two versions the higher one is valid."""

    product_id: str
    name: str
    price: int
    currency: str
    archived: bool
    version: int
    changed_at: datetime


class CataloguePage(msgspec.Struct, frozen=True, rename="camel"):
    """Products of the catalogue by id; `nextCursor` is null on the last page."""

    items: list[CatalogueEntryView]
    next_cursor: str | None


class CatalogueQuery(PageQuery, frozen=True, kw_only=True):
    """Page of the catalogue."""


def catalogue_operations(backend: Backend) -> list[Operation]:
    """Return the operations that show the copy of the catalogue."""
    return [
        Operation(
            id="listCatalogue",
            method="GET",
            scope=scopes.PRODUCTS_READ,
            path="/catalogue",
            summary="List the catalogue as this service knows it",
            description=ABOUT,
            handle=partial(_list, backend),
            query=CatalogueQuery,
            responses=[page_response("A page of the catalogue.", CataloguePage)],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="getCatalogueEntry",
            method="GET",
            scope=scopes.PRODUCTS_READ,
            path="/catalogue/{productId}",
            path_parameters={"productId": ProductId},
            summary="Get what this service knows of a product",
            description=ABOUT,
            handle=partial(_show, backend),
            responses=[
                SuccessResponse(status=200, description="The product.", content=CatalogueEntryView)
            ],
            problems=[NOT_IN_CATALOGUE, DATABASE_UNAVAILABLE],
        ),
    ]


async def _list(backend: Backend, call: Call) -> Reply:
    query: CatalogueQuery = call.query
    found = await backend.read(
        catalogue.page, after=from_cursor(query, is_product_id) or "", limit=query.rows_max
    )
    return page_reply(
        CataloguePage, "/catalogue", query, found, key=lambda entry: entry.product_id, view=_view
    )


async def _show(backend: Backend, call: Call) -> Reply:
    product_id = call.path["productId"]
    entry = await backend.read(catalogue.find, product_id) if is_product_id(product_id) else None
    if entry is None:
        raise Problem(
            NOT_IN_CATALOGUE,
            f"This service knows no product {product_id!r}: see GET "
            f"/products/{quote(product_id, safe='')} of inventory.",
        )
    return Reply(200, _view(entry))


def _view(entry: CatalogueEntry) -> CatalogueEntryView:
    return CatalogueEntryView(
        product_id=entry.product_id,
        name=entry.name,
        price=entry.price,
        currency=entry.currency,
        archived=entry.archived,
        version=entry.version,
        changed_at=entry.changed_at,
    )


ABOUT = """\
Inventory owns the catalogue and publishes it; this is the copy that new orders get their prices from. A
change arrives within a moment."""
