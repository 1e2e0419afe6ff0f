"""`todoku shipment`: list and show shipments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter

from todoku.cli.client import client, segment
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import age, day_and_time, item_list
from todoku.cli.options import ItemsMax, Json, JsonLines, Url
from todoku.cli.output import (
    KEY,
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
from todoku.cli.responses import Shipment

OUTCOME_CHARACTERS_MAX = 80
"""How much of a reason is shown in a list; `todoku shipment show` shows all of it."""

shipment = App(name="shipment", help="List and show shipments.")


@shipment.command(name="list")
def list_shipments(
    *,
    order: str | None = None,
    limit: ItemsMax = 20,
    json: JsonLines = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """List shipments, that of the newest order first.

    For example:

        todoku shipment list
        todoku shipment list --order 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku shipment list --json | jq -r 'select(.status == "FAILED") | .orderId'

    Parameters
    ----------
    order
        Only the shipment of the order with this id.
    """
    shipping = client("shipping", url, settings_to_reach(addresses).settings)
    found = shipping.list("/shipments", {"orderId": order}, items_max=limit)
    if json:
        write_lines(found)
        return
    shipments = [shipping.read(raw, Shipment) for raw in found]
    if shipments:
        _print_rows(shipments)
        suggest(f"todoku shipment show {shipments[0].id}", "show one and its order")
    else:
        note("no matching shipments: a shipment is created once the stock of an order is reserved")


@shipment.command
def show(
    shipment_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Show a shipment.

    For example:

        todoku shipment show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e

    Parameters
    ----------
    shipment_id
        The shipment's id, from `todoku shipment list` or `todoku order show`.
    """
    shipping = client("shipping", url, settings_to_reach(addresses).settings)
    answer = shipping.get(f"/shipments/{segment(shipment_id)}")
    if json:
        write_object(answer)
        return
    found = shipping.read(answer, Shipment)
    rows = {
        "id": found.id,
        "order": found.order_id,
        "status": found.status,
        "reason": None if found.last_error else found.reason,
        "last error": found.last_error,
        "next call": found.next_attempt_at and day_and_time(found.next_attempt_at),
        "tracking": found.tracking_number,
        "address": found.shipping_address,
        "items": item_list(found.items),
        "carrier calls": f"{found.attempts:,}",
        "created": day_and_time(found.created_at),
        "changed": day_and_time(found.updated_at),
    }
    console().print(grid((name, value) for name, value in rows.items() if value))
    suggest(f"todoku order watch {found.order_id}", "watch the events of its order")


def _print_rows(shipments: Sequence[Shipment]) -> None:
    rows = table(
        ids("id", (each.id for each in shipments)),
        *(KEY("status"), NUMBER("age"), TEXT("tracking or reason")),
    )
    now = datetime.now(UTC)
    for each in shipments:
        outcome = (each.tracking_number or each.reason or "")[:OUTCOME_CHARACTERS_MAX]
        rows.add_row(*cells(each.id, each.status, age(each.created_at, now), outcome))
    console().print(rows)
