"""Find orders by filters, page by page, and count them: with bounded work, whatever the filters are.

The ids of the candidates are read from an index, in the sequence of the list: that of one filter, and of
several the one with the fewest candidates. Then they are checked against the other filters. Of a filter
that few of many candidates match, a page is not full, and the next one goes on behind the last candidate.

There is no index of products, which each order would pay for: the lines of the orders are read in sequence,
up to `LINES_MAX` for a page.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    literal_column,
    or_,
    select,
    union,
    union_all,
)

from todoku.database import to_microseconds
from todoku.engine.dead_letters import DeadLetterState
from todoku.lifecycle import OVERDUE_SECONDS
from todoku.orders.domain import ORDER, Order, OrderStatus
from todoku.orders.store import OrdersStore, order_items, orders, parked_messages, with_items

COUNTED_MAX: Final = 1_000
"""How many candidates are looked at for a total."""

CANDIDATES_MAX: Final = 500
"""How many candidates are looked at for a page."""

CANDIDATES_AT_ONCE: Final = 250
"""Of a filter with so few candidates, the others are not compared with it."""

LINES_MAX: Final = 5_000
"""How many lines of orders are read to find a product."""

CREATED_AFTER_ID: Final = timedelta(seconds=60)
CREATED_BEFORE_ID: Final = timedelta(seconds=5)
"""An order's id is made when its request arrives, `created_at` when it is decided on: usually milliseconds
later, seldom up to a minute, and a little earlier if the clock of the machine is set back in between."""

ID_MILLISECONDS_MAX: Final = 2**48 - 1


class OrderFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders are wanted: those that match all that is given. No `statuses` means any.

    `created_from` is included, `created_to` is not; `overdue_at` wants those that are overdue at that time.
    """

    statuses: tuple[OrderStatus, ...] = ()
    user_id: str | None = None
    product_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    parked: bool = False
    held: bool = False
    overdue_at: datetime | None = None


class Part(msgspec.Struct, frozen=True):
    """A part of a list: up to `limit` orders behind the one with the id `after`, the last one `until`."""

    limit: int
    after: str | None = None
    ascending: bool = False
    until: str | None = None


class OrdersFound(msgspec.Struct, frozen=True):
    """Orders, and the id behind which the next page begins; None on the last page."""

    orders: Sequence[Order]
    next_key: str | None


class Source(msgspec.Struct, frozen=True):
    """An index from which candidates are read: columns with ids of orders, each with a condition. `of` is
    the filter that they match."""

    of: str
    branches: Sequence[tuple[Any, Sequence[ColumnElement[bool]]]]
    overlap: bool = False
    indexed: bool = True

    def bounded(self, connection: Connection, wanted: OrderFilter, part: Part) -> Part:
        """Return the part of this part that takes a bounded time to read."""
        if self.indexed:
            return part
        [(column, _)] = self.branches
        lines = select(column).where(*_id_range(column, wanted))
        end = connection.scalar(_page(lines, column, part).offset(LINES_MAX).limit(1))
        return msgspec.structs.replace(part, until=end)

    def size(self, connection: Connection, wanted: OrderFilter, part: Part) -> int:
        """Return how many candidates there are, up to one more than are counted. Without an index, it is
        worth to read them if another source has more than are looked at once."""
        if not self.indexed:
            return CANDIDATES_AT_ONCE + 1
        counted = msgspec.structs.replace(part, limit=COUNTED_MAX + 1)
        return _count(connection, self.ids(wanted, counted))

    def ids(self, wanted: OrderFilter, part: Part) -> Select[Any]:
        """Select the ids of candidates, in the sequence of the list."""
        selects = [self._branch(column, where, wanted, part) for column, where in self.branches]
        if len(selects) == 1:
            return selects[0]
        combine = union if self.overlap else union_all
        every = combine(*(select(each.subquery().c.id) for each in selects)).subquery()
        return _page(select(every.c.id), every.c.id, part)

    def _branch(
        self, column: Any, where: Sequence[ColumnElement[bool]], wanted: OrderFilter, part: Part
    ) -> Select[Any]:
        ids = select(column.label("id")).where(*where, *_id_range(column, wanted))
        return _page(ids if column is orders.c.id else ids.distinct(), column, part)


def find_orders(connection: Connection, wanted: OrderFilter, part: Part) -> OrdersFound:
    """Return the orders that match, sorted by id; perhaps fewer than `part.limit` before the last page."""
    if _impossible(wanted):
        return OrdersFound([], None)
    source = _source(connection, wanted, part)
    part = source.bounded(connection, wanted, part)
    others = _other_conditions(wanted, source)
    found: list[Any] = []
    for at_once in _portions(part.limit) if others else (part.limit + 1,):
        reading = msgspec.structs.replace(part, limit=at_once)
        ids = connection.scalars(source.ids(wanted, reading)).all()
        checking = msgspec.structs.replace(part, limit=part.limit + 1 - len(found))
        found += connection.execute(_matching(ids, others, checking)).all() if ids else ()
        if len(found) > part.limit:
            found.pop()
            return OrdersFound(with_items(connection, found), found[-1].id)
        if len(ids) < at_once:
            return OrdersFound(with_items(connection, found), part.until)
        part = msgspec.structs.replace(part, after=ids[-1])
    return OrdersFound(with_items(connection, found), part.after)


def _portions(limit: int) -> Sequence[int]:
    """Return how many candidates are looked at, one portion after the other: first twice as many as a page
    has, which suffices where most of them match."""
    first = min(2 * limit + 2, CANDIDATES_MAX)
    return (first, CANDIDATES_MAX - first) if first < CANDIDATES_MAX else (first,)


def count_orders(connection: Connection, wanted: OrderFilter) -> int | str:
    """Return how many orders match; if there are more candidates than are looked at, a text such as
    `1000+`: at least so many."""
    if _impossible(wanted):
        return 0
    first = Part(COUNTED_MAX)
    source = _source(connection, wanted, first)
    first = source.bounded(connection, wanted, first)
    ids = source.ids(wanted, first)
    others = _other_conditions(wanted, source)
    candidates = _count(connection, ids.limit(COUNTED_MAX + 1))
    count = min(candidates, COUNTED_MAX)
    if others:
        among = select(ids.subquery().c.id)
        query = select(func.count()).where(orders.c.id.in_(among), *others)
        count = connection.scalar(query) or 0
    complete = candidates <= COUNTED_MAX and first.until is None
    return count if complete else f"{count}+"


def _impossible(wanted: OrderFilter) -> bool:
    """Return whether no order can match: one that has ended is never overdue."""
    return wanted.overdue_at is not None and not _statuses(wanted)


def _statuses(wanted: OrderFilter) -> list[str]:
    """Return the statuses that are wanted; of overdue orders, those that are not terminal."""
    statuses = wanted.statuses or tuple(ORDER.statuses)
    return [s.value for s in statuses if wanted.overdue_at is None or not s.terminal]


def _source(connection: Connection, wanted: OrderFilter, part: Part) -> Source:
    """Return the first source with few candidates, else the one with the fewest. They are counted only if
    there are several sources."""
    sources = _sources(wanted)
    sizes: list[int] = []
    for source in sources if len(sources) > 1 else ():
        sizes.append(source.size(connection, wanted, part))
        if sizes[-1] <= CANDIDATES_AT_ONCE:
            return source
    return sources[sizes.index(min(sizes))] if sizes else sources[0]


def _sources(wanted: OrderFilter) -> list[Source]:
    """Return the index of each filter that has one; without such a filter, all orders."""
    id_: Any = orders.c.id
    found: list[Source] = []
    if wanted.parked:
        found.append(Source("parked", _parked_branches(), overlap=True))
    if wanted.held:
        found.append(Source("held", [(id_, _held())]))
    if wanted.user_id is not None:
        found.append(Source("user", [(id_, [orders.c.user_id == wanted.user_id])]))
    if wanted.statuses or wanted.overdue_at is not None:
        branches = [(id_, [orders.c.status == status]) for status in _statuses(wanted)]
        found.append(Source("status", branches))
    if wanted.product_id is not None:
        of_product = order_items.c.product_id == wanted.product_id
        found.append(Source("product", [(order_items.c.order_id, [of_product])], indexed=False))
    return found or [Source("", [(id_, [])])]


def _parked_branches() -> list[tuple[Any, list[ColumnElement[bool]]]]:
    """Return where messages are parked: at the other services, and at this one."""
    messages = parked_messages.table.c
    # A literal, because the index of open messages has this condition.
    is_open = messages.closed == literal_column("0")
    letters = OrdersStore.tables.dead_letters.table.c
    is_parked = letters.state == DeadLetterState.PARKED.value
    return [
        (messages.order_id, [is_open]),
        (letters.order_id, [is_parked, letters.order_id.is_not(None)]),
    ]


def _held() -> list[ColumnElement[bool]]:
    """Return the conditions of held orders. A process of version 0.2.0 ends an order and leaves its holds."""
    ended = [status.value for status in ORDER.statuses if status.terminal]
    return [orders.c.held_since.is_not(None), orders.c.status.not_in(ended)]


def _count(connection: Connection, ids: Select[Any]) -> int:
    return connection.scalar(select(func.count()).select_from(ids.subquery())) or 0


def _other_conditions(wanted: OrderFilter, source: Source) -> list[ColumnElement[bool]]:
    """Return the conditions that a candidate of this source need not match."""
    conditions = dict(_conditions(wanted))
    conditions.pop(source.of, None)
    return list(conditions.values())


def _conditions(wanted: OrderFilter) -> Mapping[str, ColumnElement[bool]]:
    """Return the condition of each filter that is given."""
    found: dict[str, ColumnElement[bool]] = {}
    if wanted.user_id is not None:
        found["user"] = orders.c.user_id == wanted.user_id
    if wanted.statuses or wanted.overdue_at is not None:
        found["status"] = orders.c.status.in_(_statuses(wanted))
    if wanted.product_id is not None:
        item = order_items.c
        found["product"] = exists().where(
            item.order_id == orders.c.id, item.product_id == wanted.product_id
        )
    if wanted.parked:
        branches = _parked_branches()
        found["parked"] = or_(*(exists().where(c == orders.c.id, *w) for c, w in branches))
    if wanted.held:
        found["held"] = and_(*_held())
    if wanted.created_from is not None:
        found["created from"] = orders.c.created_at >= wanted.created_from
    if wanted.created_to is not None:
        found["created to"] = orders.c.created_at < wanted.created_to
    if wanted.overdue_at is not None:
        # As in `todoku.lifecycle.overdue_from`.
        late = wanted.overdue_at - timedelta(seconds=OVERDUE_SECONDS)
        is_late = and_(orders.c.created_at < late, orders.c.held_since.is_(None))
        found["overdue"] = or_(is_late, orders.c.deadline < wanted.overdue_at)
    return found


def _matching(
    ids: Sequence[str], conditions: Sequence[ColumnElement[bool]], part: Part
) -> Select[Any]:
    """Select those of these orders that match the conditions, sorted as the list is."""
    query = select(orders).where(orders.c.id.in_(ids), *conditions)
    return _sorted(query, orders.c.id, part.ascending).limit(part.limit)


def _page(query: Select[Any], column: Any, part: Part) -> Select[Any]:
    """Restrict a query to a part of the list, in its sequence."""
    if part.after is not None:
        query = query.where(column > part.after if part.ascending else column < part.after)
    if part.until is not None:
        query = query.where(column <= part.until if part.ascending else column >= part.until)
    return _sorted(query, column, part.ascending).limit(part.limit)


def _sorted(query: Select[Any], column: Any, ascending: bool) -> Select[Any]:
    return query.order_by(column if ascending else column.desc())


def _id_range(column: Any, wanted: OrderFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions on ids that follow from when the orders were created."""
    if wanted.created_from is not None:
        yield column >= _id_at(wanted.created_from, -CREATED_AFTER_ID)
    if wanted.created_to is not None:
        yield column <= _id_at(wanted.created_to, CREATED_BEFORE_ID)


def _id_at(instant: datetime, later: timedelta) -> str:
    """Return the first UUIDv7 of a time that is so much later."""
    milliseconds = (to_microseconds(instant) or 0) // 1_000 + later // timedelta(milliseconds=1)
    return str(UUID(int=min(max(milliseconds, 0), ID_MILLISECONDS_MAX) << 80))
