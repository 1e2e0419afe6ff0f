"""What a service contributes to the export and the erasure of a person."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection

from todoku.events import ErasureEvent

IsPerson: TypeAlias = Callable[[str | None], bool]
"""Tells whether a name is that of a person who is erased."""


class OpenWork(msgspec.Struct, frozen=True):
    """What keeps a person from being erased: orders, and dead letters about orders, that are open."""

    orders: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What the service contributes that knows which orders are a person's.

    orders_of: the ids of all orders of a person.
    open_work: what is open about these orders, at any service.
    event: tells the others that a person was erased.
    """

    orders_of: Callable[[Connection, str], Sequence[str]]
    open_work: Callable[[Connection, Sequence[str]], OpenWork]
    event: type[ErasureEvent]


class Persons(msgspec.Struct, frozen=True, kw_only=True):
    """What a service contributes. Dead letters and the audit log are the engine's.

    erase: erases what is personal about these orders: `(connection, order ids, is_person)`, where the last
        tells whether a name is one of the person's. It may be called again at any time.
    export: everything that is stored about these orders, as rows by table.
    """

    erase: Callable[[Connection, Sequence[str], IsPerson], None]
    export: Callable[[Connection, Sequence[str]], Mapping[str, Any]]
    owner: Owner | None = None
