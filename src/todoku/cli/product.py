"""`todoku product`: list, show, create, change, archive and publish products; their stock is in
`product_stock`."""

import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from todoku.cli import product_stock
from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import counted, day_and_time, money
from todoku.cli.options import Flag, ItemsMax, Json, JsonLines, Url
from todoku.cli.output import (
    NUMBER,
    TEXT,
    cells,
    console,
    grid,
    ids,
    note,
    suggest,
    table,
    write_lines,
    write_object,
)
from todoku.cli.responses import Product, Publishing

product = App(
    name="product",
    help="List, show, create, change, archive and publish products; adjust their stock.",
)

ProductId = Annotated[str, Parameter(name="ID")]


@product.command(name="list")
def list_products(
    *,
    limit: ItemsMax = 1000,
    json: JsonLines = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """List products by id, with their stock: reserved for orders, and available.

    For example:

        todoku product list
        todoku product list --json | jq -r 'select(.availableQuantity == 0) | .id'
    """
    inventory = client("inventory", url, settings_to_reach(addresses).settings)
    found = inventory.list("/products", {}, items_max=limit)
    if json:
        write_lines(found)
        return
    products = [inventory.read(raw, Product) for raw in found]
    if products:
        _print_rows(products)
        first = shlex.quote(products[0].id)
        suggest(f"todoku order place --user alice {first}", "order a product")
    else:
        note("no products")
        suggest(
            "todoku product set prod001 --name 'Super Keyboard' --price 5000 --stock 10",
            "create one",
        )


@product.command
def show(
    product_id: ProductId,
    /,
    *,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Show a product and its stock.

    For example:

        todoku product show prod001
        todoku product show prod001 --json | jq .availableQuantity

    Parameters
    ----------
    product_id
        The product's id.
    """
    inventory = client("inventory", url, settings_to_reach(addresses).settings)
    answer = inventory.get(_path(product_id))
    _print(inventory, answer, json=json)
    if not json:
        suggest(f"todoku product restock {shlex.quote(product_id)} 10", "restock it")


@product.command(name="set")
def set_product(
    product_id: ProductId,
    /,
    *,
    name: str | None = None,
    price: int | None = None,
    currency: str | None = None,
    stock: int | None = None,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Create a product, or change its name and price.

    What you omit stays unchanged; if the product is changed by somebody else at the
    same time, the command is refused. The stock of an existing product changes only
    by orders and by `todoku product restock`.

    For example:

        todoku product set prod009 --name キーボード --price 15000 --stock 10
        todoku product set prod009 --price 14000

    Parameters
    ----------
    product_id
        The product's id: letters, digits, '.', '_' and '-'.
    name
        The product's name.
    price
        The price of one unit, in the smallest unit of the currency (yen, cents).
    currency
        The currency as an ISO 4217 code; JPY for a new product.
    stock
        The initial stock of a new product.
    """
    inventory = client("inventory", url, settings_to_reach(addresses).settings)
    wanted: dict[str, Any] = {"name": name, "price": price, "currency": currency}
    if_match: str | None = None
    if name is None or price is None:
        existing = _existing(inventory, product_id)
        if_match = _etag(existing)
        wanted = {"name": existing.name, "price": existing.price} | _given(wanted)
    change = _given({**wanted, "stockQuantity": stock})
    answer = inventory.send(
        "PUT",
        _path(product_id),
        msgspec.json.encode(change),
        find_out=f"See `todoku product show {shlex.quote(product_id)}`.",
        if_match=if_match,
    )
    _print(inventory, answer, json=json)
    if not json:
        suggest(f"todoku order place --user alice {shlex.quote(product_id)}", "order it")


@product.command
def archive(
    product_id: ProductId,
    /,
    *,
    undo: Flag = False,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Archive a product: no new order may have it.

    Its stock stays, and orders that were accepted go on.

    For example:

        todoku product archive prod001
        todoku product archive prod001 --undo

    Parameters
    ----------
    product_id
        The product's id.
    undo
        Take the product back: it may be ordered again.
    """
    inventory = client("inventory", url, settings_to_reach(addresses).settings)
    answer = inventory.send(
        "POST",
        f"{_path(product_id)}/{'unarchive' if undo else 'archive'}",
        b"",
        find_out=f"See `todoku product show {shlex.quote(product_id)}`.",
    )
    _print(inventory, answer, json=json)


@product.command
def publish(
    *,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Publish every product again, for a service that lacks some.

    Each change of a product is published by itself. This is for a new service, or
    one that has lost its database.

    For example:

        todoku product publish
    """
    inventory = client("inventory", url, settings_to_reach(addresses).settings)
    answer = inventory.send("POST", "/catalogue/publish", b"", find_out="It is safe to repeat it.")
    if json:
        write_object(answer)
        return
    publishing = inventory.read(answer, Publishing)
    note(f"publishing {counted(publishing.products, 'product')}")


def _path(product_id: str) -> str:
    return f"/products/{segment(product_id)}"


def _etag(product: Product) -> str | None:
    """Return the entity tag of a product; None where its service knows none."""
    return None if product.version is None else f'"{product.version}"'


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _existing(inventory: ServiceClient, product_id: str) -> Product:
    """Return the product to change. Raises `CommandFailed`."""
    try:
        return inventory.read(inventory.get(_path(product_id)), Product)
    except CommandFailed as failure:
        if failure.exit_code is not ExitCode.NOT_FOUND:
            raise
        raise CommandFailed(
            f"no product {shlex.quote(product_id)}: to create it, give both --name and --price.",
            exit_code=ExitCode.NOT_FOUND,
        ) from failure


def _print_rows(products: Sequence[Product]) -> None:
    numbers = map(NUMBER, ("price", "stock", "reserved", "available"))
    rows = table(ids("id", (each.id for each in products)), TEXT("name"), *numbers)
    for each in products:
        stock = (each.stock_quantity, each.reserved_quantity, each.available_quantity)
        price = money(each.price, each.currency)
        name = f"{each.name} (archived)" if each.archived else each.name
        rows.add_row(*cells(each.id, name, price, *(f"{count:,}" for count in stock)))
    console().print(rows)


def _print(inventory: ServiceClient, answer: bytes, *, json: bool) -> None:
    if json:
        write_object(answer)
        return
    found = inventory.read(answer, Product)
    rows = {
        "id": found.id,
        "name": found.name,
        "price": money(found.price, found.currency),
        "stock": f"{found.stock_quantity:,}",
        "reserved": f"{found.reserved_quantity:,}",
        "available": f"{found.available_quantity:,}",
        "changed": day_and_time(found.updated_at),
        "version": None if found.version is None else str(found.version),
        "archived": "yes" if found.archived else None,
        "low at": None if found.low_stock_threshold is None else f"{found.low_stock_threshold:,}",
    }
    console().print(grid((name, value) for name, value in rows.items() if value is not None))


product_stock.register(product, _print)
