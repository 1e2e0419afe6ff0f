"""Put orders into the queues of their products, and take them out."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from todoku.inventory.domain.queue import Place, Queue
from todoku.inventory.domain.stock import Line, Product, Reservation, Stock

Products = Mapping[str, Product]


def place_of(held: Reservation) -> Place:
    """Return the place of an order in the queues of its products."""
    return held.queued_at or held.created_at, held.order_id


def wait_in_line(stock: Stock, held: Reservation, now: datetime) -> Stock:
    """Return the stock with an order that waits for all its products.

    One that could be served, if nobody was before it, makes the walks of its queues due: they decide.
    """
    wanted = [line for line in held.lines if line.pieces]
    short = {line.product_id for line in wanted if line.pieces > _available(stock, line)}
    place = place_of(held)
    first = not short and all(_admits(stock.products[line.product_id], place) for line in wanted)
    products = dict(stock.products)
    for line in wanted:
        product = stock.products[line.product_id]
        queue = (product.queue or Queue()).joined(line.pieces, place, short=product.id in short)
        products[product.id] = with_queue(product, queue.woken(now) if first else queue)
    return msgspec.structs.replace(stock, products=products, reservation=held)


def left_line(
    products: Products, lines: Iterable[Line], now: datetime, *, wake: bool
) -> dict[str, Product]:
    """Return the products of the lines, without their pieces in the queues; `wake` makes a walk due."""
    left: dict[str, Product] = {}
    for line in lines:
        product = products[line.product_id]
        if line.pieces and product.queue is not None:
            queue = product.queue.without(line.pieces)
            left[product.id] = with_queue(product, queue.woken(now) if queue and wake else queue)
    return left


def with_queue(product: Product, queue: Queue | None) -> Product:
    """Return a product with this queue."""
    return msgspec.structs.replace(product, queue=queue)


def _admits(product: Product, place: Place) -> bool:
    return product.queue is None or product.queue.admits(place)


def _available(stock: Stock, line: Line) -> int:
    return stock.products[line.product_id].available
