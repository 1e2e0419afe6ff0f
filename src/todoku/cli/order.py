"""`todoku order`: place, list, show, watch, hold and cancel orders."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter
from rich.table import Table

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import age, day_and_time, item_list, money, printable
from todoku.cli.new_order import cancelled_piece, parse_item, typed_order, written_order
from todoku.cli.options import Flag, ItemsMax, Json, JsonLines, Seconds, Url
from todoku.cli.order_holds import described, hold, release
from todoku.cli.order_why import why
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
from todoku.cli.responses import Change, Order, Product, Total
from todoku.cli.waiting import waiting_text
from todoku.orders.domain import OrderStatus

ARRIVAL_SECONDS = 2.0
"""How long a price that inventory has may take to arrive at orders."""

ARRIVAL_PAUSE_SECONDS = 0.2

order = App(name="order", help="Place, list, show, explain, watch, hold and cancel orders.")
order.command(hold)
order.command(release)
order.command(why)

Timeout = Annotated[
    Seconds | None,
    Parameter(
        help="The maximum time to watch, in seconds; default: until the order ends.",
        show_default=False,
    ),
]
FIND_OUT = "Check with `todoku order list` before you place it again."
Source = Annotated[str | None, Parameter(name="--from", allow_leading_hyphen=True)]
Statuses = Annotated[
    tuple[OrderStatus, ...], Parameter(name_transform=str, negative="", show_default=False)
]
ENDED = frozenset(status.value for status in OrderStatus if status.terminal)


@order.command
def place(
    *items: str,
    user: str | None = None,
    address: str | None = None,
    currency: str | None = None,
    deadline: str | None = None,
    on_shortage: Literal["cancel", "wait"] | None = None,
    source: Source = None,
    watch: Flag = False,
    timeout: Timeout = None,
    json: Json = False,
    url: Url = None,
    inventory_url: Annotated[str | None, Parameter(show_default=False)] = None,
    addresses: Addresses = None,
) -> ExitCode:
    """Place an order.

    The order is durable once its id is printed. Prices are in the smallest unit of
    the currency (yen, cents). With --watch and --json, the events of the order are
    printed, as by `todoku order watch`.

    For example:

        todoku order place --user alice prod001:2@5000 prod002:1@3000
        todoku order place --user alice prod001 --address 千代田区1-1 --watch
        todoku order place --user alice prod001 --deadline 2030-01-02T03:04:05Z
        todoku order place --user alice prod001:50 --on-shortage wait
        todoku order place --from order.json
        jq '.userId = "bob"' order.json | todoku order place --from - --json

    Parameters
    ----------
    items
        PRODUCT:QUANTITY@PRICE each; the default quantity is 1, the default price the inventory's.
    user
        The id of the user who orders.
    address
        The shipping address.
    currency
        The currency of the given prices, an ISO 4217 code.
    deadline
        When an open order is cancelled, as in 2030-01-02T03:04:05Z; default: as the service is set up.
    on_shortage
        What becomes of the order if stock is missing: cancel it, or wait for stock.
    source
        A file with the order as JSON, as in POST /orders; - for stdin.
    watch
        Watch the order until it ends.
    inventory_url
        The address of the inventory service, for prices that are not given.
    """
    settings = settings_to_reach(addresses).settings
    orders = client("orders", url, settings)
    _require_one_form(items, user, (address, currency, deadline, on_shortage), source)
    if source is not None:
        body, looked_up = written_order(source), False
    else:
        inventory = client("inventory", inventory_url, settings)
        typed = [parse_item(item) for item in items]
        looked_up = any(item.price is None for item in typed)
        body = typed_order(
            user or "",
            typed,
            address=address,
            currency=currency,
            deadline=deadline,
            on_shortage=on_shortage,
            look_up=lambda product_id: _look_up(inventory, product_id),
        )
    answer = _send_order(orders, body, looked_up=looked_up)
    placed = orders.read(answer, Order)
    if watch:
        note(f"order {placed.id} placed")
        return _watch(orders, placed.id, json=json, timeout_seconds=timeout)
    if json:
        write_object(answer)
    else:
        _print(placed)
        suggest(f"todoku order watch {placed.id}", "watch it until it ends")
    return ExitCode.OK


@order.command
def show(
    order_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Show an order.

    For example:

        todoku order show 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku order show 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --json | jq .status

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    """
    settings = settings_to_reach(addresses).settings
    orders = client("orders", url, settings)
    answer = orders.get(f"/orders/{segment(order_id)}")
    if json:
        write_object(answer)
        return
    found = orders.read(answer, Order)
    _print(found)
    _suggest_after(found.status, found.id)


@order.command(name="list")
def list_orders(
    *,
    user: str | None = None,
    product: str | None = None,
    status: Statuses = (),
    created_from: str | None = None,
    created_to: str | None = None,
    parked: Flag = False,
    held: Flag = False,
    overdue: Flag = False,
    sort: Literal["createdAt", "-createdAt"] = "-createdAt",
    count: Flag = False,
    limit: ItemsMax = 20,
    json: JsonLines = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """List orders, newest first.

    An order is listed if it matches all filters.

    For example:

        todoku order list --user alice --status SHIPMENT_FAILED --status CANCELLED
        todoku order list --product prod001 --created-from 2030-01-02T03:04:05Z
        todoku order list --overdue --count
        todoku order list --limit 100000 --json | jq -r .id

    Parameters
    ----------
    user
        Only orders of this user.
    product
        Only orders of this product.
    status
        Only orders with this status; may be repeated.
    created_from
        Only orders created at this time or later, as in 2030-01-02T03:04:05Z.
    created_to
        Only orders created before this time.
    parked
        Only orders that a dead letter is about.
    held
        Only orders that are held.
    overdue
        Only orders that should have ended.
    sort
        createdAt: the oldest first.
    count
        Print only how many orders match; 1000+ means at least so many.
    """
    orders = client("orders", url, settings_to_reach(addresses).settings)
    query = {
        "userId": user,
        "productId": product,
        "status": status,
        "createdFrom": created_from,
        "createdTo": created_to,
        "parked": "true" if parked else None,
        "held": "true" if held else None,
        "overdue": "true" if overdue else None,
    }
    if count:
        _print_total(orders, query, json=json)
        return
    found = orders.list("/orders", {**query, "sort": sort}, items_max=limit)
    if json:
        write_lines(found)
        return
    rows = [orders.read(raw, Order) for raw in found]
    if rows:
        _print_rows(rows)
        suggest(f"todoku order show {rows[0].id}", "show one of them")
    else:
        note("no matching orders")
        suggest("todoku order place --user alice prod001", "place one")


def _print_total(orders: ServiceClient, query: Mapping[str, object], *, json: bool) -> None:
    answer = orders.get("/orders", {**query, "limit": 1, "count": "true"})
    total = orders.read(answer, Total).total
    if json:
        write_object(msgspec.json.encode({"total": total}))
    else:
        console().print(str(total))


@order.command
def watch(
    order_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    timeout: Timeout = None,
    json: JsonLines = False,
    url: Url = None,
    addresses: Addresses = None,
) -> ExitCode:
    """Watch the events of an order until it ends.

    Shows each event with its local time, the time since the order was placed, the
    service that published it, and the order's status. Late events and
    compensations are marked. The exit code is that of the final status: 0 is
    COMPLETED, 10, 11, 13 and 15 are failures; 12 means that the order had not ended
    before --timeout.

    For example:

        todoku order watch 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku order watch 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --json --timeout 30

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    """
    orders = client("orders", url, settings_to_reach(addresses).settings)
    return _watch(orders, order_id, json=json, timeout_seconds=timeout)


@order.command
def cancel(
    order_id: Annotated[str, Parameter(name="ID")],
    /,
    *items: str,
    reason: str | None = None,
    watch: Flag = False,
    timeout: Timeout = None,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> ExitCode:
    """Cancel an order, or pieces of it.

    Succeeds if the carrier has not been called yet, which shipping decides; the
    order is CANCELLING until then. To cancel an order again changes nothing; to
    cancel pieces again cancels further ones.

    For example:

        todoku order cancel 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --reason Duplicate
        todoku order cancel 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e prod001:1 --watch

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    items
        PRODUCT:QUANTITY each; without any, the whole order.
    reason
        Why it is to be cancelled.
    watch
        Watch the order until it ends.
    """
    orders = client("orders", url, settings_to_reach(addresses).settings)
    wish: dict[str, object] = {} if reason is None else {"reason": reason}
    if items:
        wish["items"] = [cancelled_piece(text) for text in items]
    body = msgspec.json.encode(wish)
    answer = orders.send(
        "POST",
        f"/orders/{segment(order_id)}/cancel",
        body,
        find_out=f"Check with `todoku order show {printable(order_id)}` before you repeat it.",
    )
    if watch:
        return _watch(orders, order_id, json=json, timeout_seconds=timeout)
    if json:
        write_object(answer)
    else:
        found = orders.read(answer, Order)
        _print(found)
        _suggest_after(found.status, found.id)
    return ExitCode.OK


def _watch(
    orders: ServiceClient, order_id: str, *, json: bool, timeout_seconds: float | None
) -> ExitCode:
    # Imported here: only this command needs it.
    from todoku.cli.follow import follow
    from todoku.cli.saga import ENDINGS

    status = follow(orders, order_id, json=json, timeout_seconds=timeout_seconds)
    if not json:
        _suggest_after(status, order_id)
    return ENDINGS[status]


def _require_one_form(
    items: tuple[str, ...],
    user: str | None,
    optional: tuple[str | None, ...],
    source: str | None,
) -> None:
    """Raise `CommandFailed` unless the order is given either by flags or in a file."""
    if source is None and not (items and user):
        raise CommandFailed(
            "give --user and at least one item, as in"
            " `todoku order place --user alice prod001:2@5000`, or a file with --from.",
            exit_code=ExitCode.USAGE,
        )
    if source is not None and any((items, user, *optional)):
        raise CommandFailed(
            "--from takes the whole order from the file: omit the items, --user, --address,"
            " --currency and --deadline.",
            exit_code=ExitCode.USAGE,
        )


def _send_order(orders: ServiceClient, body: bytes, *, looked_up: bool) -> bytes:
    """Place an order. Raises `CommandFailed`.

    Prices that were `looked_up` at inventory may not have arrived at orders yet: then it is sent again for a
    while.
    """
    ends = time.monotonic() + ARRIVAL_SECONDS
    while True:
        try:
            return orders.send("POST", "/orders", body, find_out=FIND_OUT)
        except CommandFailed as failure:
            late = looked_up and failure.problem == "price-changed"
            if not late or time.monotonic() > ends:
                raise
        time.sleep(ARRIVAL_PAUSE_SECONDS)


def _look_up(inventory: ServiceClient, product_id: str) -> Product:
    """Return a product. Raises `CommandFailed`."""
    try:
        return inventory.read(inventory.get(f"/products/{segment(product_id)}"), Product)
    except CommandFailed as failure:
        if failure.exit_code is not ExitCode.NOT_FOUND:
            raise
        raise CommandFailed(
            f"the inventory has no product {printable(product_id)}, so its price is unknown.\n"
            "List the products with `todoku product list`, or give a price, as in"
            f" {printable(product_id)}:1@5000.",
            exit_code=ExitCode.NOT_FOUND,
        ) from failure


def _print(found: Order) -> None:
    rows = {
        "id": found.id,
        "status": found.status,
        "waits for": found.waiting_for and waiting_text(found.waiting_for),
        "reason": found.reason,
        "user": found.user_id,
        "address": found.shipping_address,
        "total": money(found.total_amount, found.currency),
        "placed": day_and_time(found.created_at),
        "changed": day_and_time(found.updated_at),
        "deadline": found.deadline and day_and_time(found.deadline),
        "shipment": found.shipment_id,
        "tracking": found.tracking_number,
        "cancellation": "; ".join(map(_cancellation, found.changes)),
        "hold": "; ".join(f"{each.id} {described(each)}" for each in found.holds),
        "parked": "; ".join(
            f"{parked.event_type} at {parked.service} ({parked.error}):"
            f" todoku dead show {parked.letter_id} --service {parked.service}"
            for parked in found.parked
        ),
    }
    out = console()
    out.print(grid((name, value) for name, value in rows.items() if value))
    out.print()
    out.print(_items(found))


def _items(found: Order) -> Table:
    """Return the items as a table; with a column of cancelled pieces if there are any."""
    cancelled = {line.product_id: line.cancelled for line in found.lines if line.cancelled}
    columns = (*("quantity", "price", "sum"), *(("cancelled",) if cancelled else ()))
    items = table(KEY("product"), *map(NUMBER, columns))
    for item in found.items:
        price, total = (
            money(amount, found.currency) for amount in (item.price, item.price * item.quantity)
        )
        values = (item.product_id, f"{item.quantity:,}", price, total)
        items.add_row(*cells(*values, f"{cancelled.get(item.product_id, 0):,}")[: len(columns) + 1])
    return items


def _cancellation(found: Change) -> str:
    what = "" if found.whole else f"{item_list(found.items)} "
    by = f" by {found.by}" if found.by else ""
    requested = f"{what}requested{by} {day_and_time(found.requested_at)}"
    if found.decided_at is None:
        return requested
    refusal = f": {found.refusal}" if found.refusal else ""
    return f"{requested}, {found.state} {day_and_time(found.decided_at)}{refusal}"


def _print_rows(found: Sequence[Order]) -> None:
    rows = table(
        ids("id", (each.id for each in found)),
        *(KEY("status"), NUMBER("total"), NUMBER("age"), TEXT("user")),
        gap=1,
    )
    now = datetime.now(UTC)
    for each in found:
        total = money(each.total_amount, each.currency)
        rows.add_row(*cells(each.id, each.status, total, age(each.created_at, now), each.user_id))
    console().print(rows)


def _suggest_after(status: str, order_id: str) -> None:
    match status:
        case OrderStatus.COMPLETED:
            suggest(f"todoku shipment list --order {order_id}", "see its shipment")
        case OrderStatus.SHIPMENT_FAILED:
            suggest(f"todoku shipment list --order {order_id}", "see why the carrier rejected it")
        case OrderStatus.CANCELLED_NO_STOCK:
            suggest("todoku product list", "see the stock")
        case OrderStatus.CANCELLED:
            suggest("todoku product list", "see the stock that is available again")
        case _:
            suggest(f"todoku order watch {order_id}", "watch it until it ends")
