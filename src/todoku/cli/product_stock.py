"""`todoku product restock|correct|threshold|ledger|reservations`: the stock of a product, for its staff."""

import shlex
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import day_and_time
from todoku.cli.options import ItemsMax, Json, JsonLines, Url
from todoku.cli.output import (
    KEY,
    NUMBER,
    TEXT,
    cells,
    console,
    ids,
    note,
    suggest,
    table,
    write_lines,
)
from todoku.cli.responses import Hold, LedgerEntry

Print = Callable[..., None]
"""Prints a product: `print(inventory, answer, json=json)`."""

ProductId = Annotated[str, Parameter(name="ID")]


def register(product: App, print_product: Print) -> None:
    """Add the commands about stock to `todoku product`."""

    @product.command
    def restock(
        product_id: ProductId,
        quantity: Annotated[int, Parameter(name="QUANTITY")],
        /,
        *,
        code: str | None = None,
        reason: str | None = None,
        json: Json = False,
        url: Url = None,
        addresses: Addresses = None,
    ) -> None:
        """Add stock to a product.

        For example:

            todoku product restock prod001 10 --reason 'Delivery 4711'

        Parameters
        ----------
        product_id
            The product's id.
        quantity
            The number of units to add.
        code
            The reason as a code; default: DELIVERY.
        reason
            The reason in words, for the stock ledger.
        """
        inventory = client("inventory", url, settings_to_reach(addresses).settings)
        answer = _adjust(inventory, product_id, "restock", quantity, code, reason)
        print_product(inventory, answer, json=json)
        if not json:
            suggest(f"todoku order place --user alice {shlex.quote(product_id)}", "order it")

    @product.command
    def correct(
        product_id: ProductId,
        quantity: Annotated[int, Parameter(name="DIFFERENCE", allow_leading_hyphen=True)],
        /,
        *,
        code: str | None = None,
        reason: str | None = None,
        json: Json = False,
        url: Url = None,
        addresses: Addresses = None,
    ) -> None:
        """Correct the stock of a product by a difference, up or down.

        Pieces that are reserved for orders cannot be taken out.

        For example:

            todoku product correct prod001 -2 --code DAMAGE --reason 'Fell down'
            todoku product correct prod001 0 --reason 'Counted, and right'

        Parameters
        ----------
        product_id
            The product's id.
        quantity
            How many units there are more, or fewer if it is negative.
        code
            The reason as a code, such as DAMAGE, LOSS or RETURN; default: COUNT.
        reason
            The reason in words, for the stock ledger.
        """
        inventory = client("inventory", url, settings_to_reach(addresses).settings)
        answer = _adjust(inventory, product_id, "correct", quantity, code, reason)
        print_product(inventory, answer, json=json)
        if not json:
            suggest(
                f"todoku product ledger {shlex.quote(product_id)}", "see what changed its stock"
            )

    @product.command
    def threshold(
        product_id: ProductId,
        pieces: Annotated[int | None, Parameter(name="PIECES")] = None,
        /,
        *,
        json: Json = False,
        url: Url = None,
        addresses: Addresses = None,
    ) -> None:
        """Set at how many available units a product is low.

        A StockLowEvent is published when as few are available. Without PIECES, the
        product is never low.

        For example:

            todoku product threshold prod001 5

        Parameters
        ----------
        product_id
            The product's id.
        pieces
            The number of units.
        """
        inventory = client("inventory", url, settings_to_reach(addresses).settings)
        answer = inventory.send(
            "PUT",
            f"{_path(product_id)}/low-stock-threshold",
            msgspec.json.encode({"threshold": pieces}),
            find_out="It is safe to repeat it.",
        )
        print_product(inventory, answer, json=json)

    @product.command
    def ledger(
        product_id: ProductId,
        /,
        *,
        limit: ItemsMax = 20,
        json: JsonLines = False,
        url: Url = None,
        addresses: Addresses = None,
    ) -> None:
        """List what changed the stock of a product, the newest first.

        For example:

            todoku product ledger prod001
            todoku product ledger prod001 --json | jq 'select(.kind == "CORRECTION")'

        Parameters
        ----------
        product_id
            The product's id.
        """
        inventory = client("inventory", url, settings_to_reach(addresses).settings)
        found = inventory.list(f"{_path(product_id)}/ledger", {}, items_max=limit)
        if json:
            write_lines(found)
            return
        rows = table(TEXT("at"), NUMBER("pieces"), KEY("kind"), TEXT("why"), TEXT("by"))
        for raw in found:
            entry = inventory.read(raw, LedgerEntry)
            why = ": ".join(filter(None, (entry.code, entry.reason))) or entry.order_id or ""
            when = day_and_time(entry.at)
            rows.add_row(*cells(when, f"{entry.quantity:+,}", entry.kind, why, entry.by or ""))
        console().print(rows)

    @product.command
    def reservations(
        product_id: ProductId,
        /,
        *,
        limit: ItemsMax = 20,
        json: JsonLines = False,
        url: Url = None,
        addresses: Addresses = None,
    ) -> None:
        """List the reservations of a product, the newest order first.

        For example:

            todoku product reservations prod001
            todoku product reservations prod001 --json | jq -r .orderId

        Parameters
        ----------
        product_id
            The product's id.
        """
        inventory = client("inventory", url, settings_to_reach(addresses).settings)
        found = inventory.list(f"{_path(product_id)}/reservations", {}, items_max=limit)
        if json:
            write_lines(found)
            return
        holds = [inventory.read(raw, Hold) for raw in found]
        if not holds:
            note("no order holds this product")
            return
        orders = ids("order", (hold.order_id for hold in holds))
        rows = table(orders, NUMBER("pieces"), KEY("state"), TEXT("since"))
        for hold in holds:
            since = day_and_time(hold.since)
            rows.add_row(*cells(hold.order_id, f"{hold.quantity:,}", hold.state, since))
        console().print(rows)
        suggest(f"todoku order show {holds[0].order_id}", "show one")


def _adjust(
    inventory: ServiceClient,
    product_id: str,
    how: str,
    quantity: int,
    code: str | None,
    reason: str | None,
) -> bytes:
    body: dict[str, Any] = {"quantity": quantity, "code": code, "reason": reason}
    return inventory.send(
        "POST",
        f"{_path(product_id)}/{how}",
        msgspec.json.encode({name: value for name, value in body.items() if value is not None}),
        find_out=f"See `todoku product ledger {shlex.quote(product_id)}` before you repeat it.",
    )


def _path(product_id: str) -> str:
    return f"/products/{segment(product_id)}"
