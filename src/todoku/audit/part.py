"""Define what a service contributes to the audit: what it knows about each order, and its own checks."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Connection

from todoku.lifecycle import Lifecycle

Pieces = tuple[tuple[str, int], ...]
"""Product ids with numbers of pieces."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """A broken invariant: which one, of what (an order, a product or a service), how, and what to do.

    `asks` is the service that can republish, without harm, what another one seems to have missed.
    """

    invariant: str
    subject: str
    problem: str
    advice: str
    asks: str | None = None

    @property
    def about(self) -> tuple[str, str]:
        """Return the invariant and the subject, which are the same whatever the numbers."""
        return self.invariant, self.subject


class Problem(msgspec.Struct, frozen=True):
    """A broken invariant of one order that a service can see alone."""

    invariant: str
    problem: str
    advice: str


class Known(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a service knows about one order.

    `status` is that of its entity, None if there is only a trace of one, which `trace` describes.
    `items` and `address` are compared with the order; None if this service does not know them.
    `items_partial` says that some items of the order may be absent.
    """

    order_id: str
    status: str | None = None
    trace: str = ""
    items: Pieces | None = None
    items_partial: bool = False
    address: str | None = None
    problems: tuple[Problem, ...] = ()


class KnownOrder(Known, frozen=True, kw_only=True, gc=False):
    """What the service that accepts orders knows about one of them; times are UTC.

    `saga_version` is the version of the saga in which the order was accepted. At its `deadline` it should
    have ended. While it is `held` it waits for a person, for as long as it takes.
    """

    accepted_at: datetime
    changed_at: datetime
    saga_version: int = 1
    deadline: datetime | None = None
    held: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Why an order has not ended: what to do, and the service that may republish, if there is one.

    Where one service cannot tell which of several must, it names all of them.
    """

    advice: str
    asks: str | tuple[str, ...] | None = None


SEE_OTHERS = Wait("See what else is found about it, and repair that first.")
"""The order waits because of something else that is found about it."""


def no_findings(_: Connection) -> Iterable[Finding]:
    """Return nothing: the service has no checks of its own."""
    return ()


def no_wait(_: Connection, known: Known, order_status: str) -> Wait | None:
    """Return nothing: the service does not know why the order waits."""
    return None


class AuditPart(msgspec.Struct, frozen=True, kw_only=True):
    """What a service contributes to the audit.

    entity: what it keeps for an order, such as `reservation`; `order` for the orders themselves.
    lifecycle: the statuses of that entity, and what each implies at the others.
    known: reads what the service knows, once for each order.
    findings: its own checks, such as that of a ledger.
    holds: statuses that must not remain after the order has ended (I5), each with the text of the
        finding.
    expected: by status of an ended order, the statuses that the entity may have; for entities that the
        lifecycle of the order does not name. None stands for "there is none".
    since_saga_version: the version of the saga that added this service as a step: orders accepted in an
        earlier one must have nothing here.
    patient: statuses in which an order may wait until its deadline; it is not overdue before.
    wait: returns why an order that is overdue waits here; None if it waits for an earlier service.
    """

    entity: str
    lifecycle: Lifecycle[Any]
    known: Callable[[Connection], Iterable[Known]]
    findings: Callable[[Connection], Iterable[Finding]] = no_findings
    holds: Mapping[str, str] = {}
    expected: Mapping[str, tuple[str | None, ...]] = {}
    since_saga_version: int = 1
    patient: Collection[str] = ()
    wait: Callable[[Connection, Known, str], Wait | None] = no_wait


def pieces_by_owner(rows: Iterable[tuple[str, str, int]]) -> dict[str, Pieces]:
    """Return the pieces of each owner from rows (owner, product id, pieces), sorted by owner and product.

    A product id is one object, however often it occurs.
    """
    names: dict[str, str] = {}
    return {
        owner: tuple((names.setdefault(product, product), pieces) for _, product, pieces in group)
        for owner, group in groupby(rows, key=itemgetter(0))
    }


RESTORED = (
    "Was a database restored from a backup? What neither the backup nor the stream has is missing: "
    "restore a newer backup, or enter it from your own records."
)


def not_received(service: str, what: str) -> str:
    """Return the advice for a service that seems to have missed an event."""
    return (
        f"The {service} service has not received {what}. Check with `todoku doctor` that it runs; if it "
        "does, resend the event: `todoku verify --repair`."
    )
