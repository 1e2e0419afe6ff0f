"""Tools that change something. Each only plans: `Toolbox` asks for a confirmation, and sends the request."""

import shlex
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from todoku.cli.agents.tool import Changing, OrderId, Plan, Reason, ServiceName, Services, Tool
from todoku.cli.client import segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.pausing import PAUSES_MAX

LETTERS_LOOKED_AT: Final = 200


class CancelOrder(Changing, frozen=True, kw_only=True):
    order_id: OrderId
    reason: Reason


class HoldOrder(Changing, frozen=True, kw_only=True):
    order_id: OrderId
    action: Literal["hold", "release"] = "hold"
    reason: Annotated[
        str, Meta(max_length=400, description="Why, in a sentence; needed to hold.")
    ] = ""
    hold_id: Annotated[
        str | None, Meta(description="Which hold to release, from get_order; needed to release.")
    ] = None


class RetryDeadLetters(Changing, frozen=True, kw_only=True):
    service: ServiceName
    letter_id: Annotated[str | None, Meta(description="One dead letter, at once.")] = None
    group: Annotated[
        str | None, Meta(description="All with the same error, in the background.")
    ] = None
    rate_per_second: Annotated[
        int, Meta(ge=1, le=100, description="How many of a group a second.")
    ] = 10


class Pause(Changing, frozen=True, kw_only=True):
    service: ServiceName
    action: Literal["pause", "resume"]
    target: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=512,
            description="`service` for all that it starts of its own accord, or one thing: `carrier` at"
            " shipping, `product:ID`.",
        ),
    ] = "service"
    reason: Annotated[
        str, Meta(max_length=400, description="Why, in a sentence; needed to pause.")
    ] = ""


def cancel_order(services: Services, wanted: CancelOrder) -> Plan:
    """Plan to cancel an order."""
    path = f"/orders/{segment(wanted.order_id)}"
    order = services.get("orders", path)
    return Plan(
        service="orders",
        paths=(f"{path}/cancel",),
        body={"reason": wanted.reason},
        summary=f"Cancel the order {wanted.order_id}, which is {order['status']}. Shipping refuses it if the"
        " carrier was called. It cannot be undone.",
        command=_command("order", "cancel", wanted.order_id, "--reason", wanted.reason),
        about=_order(order),
    )


def hold_order(services: Services, wanted: HoldOrder) -> Plan:
    """Plan to hold an order, or to release a hold."""
    path = f"/orders/{segment(wanted.order_id)}"
    order = services.get("orders", path)
    if wanted.action == "hold":
        _require(wanted.reason, "reason", "hold")
        return Plan(
            service="orders",
            paths=(f"{path}/holds",),
            body={"holder": services.agent, "reason": wanted.reason},
            summary=f"Hold the order {wanted.order_id}, which is {order['status']}: the carrier is not called"
            " until the hold is released.",
            command=_command(
                *("order", "hold", wanted.order_id),
                *("--holder", services.agent, "--reason", wanted.reason),
            ),
            about=_order(order),
        )
    hold_id = _require(wanted.hold_id, "hold_id", "release")
    return Plan(
        service="orders",
        paths=(f"{path}/holds/{segment(hold_id)}/release",),
        body=None,
        summary=f"Release the hold {hold_id} of the order {wanted.order_id}: it is shipped if no other hold"
        " is open.",
        command=_command("order", "release", wanted.order_id, hold_id),
        about=_order(order),
    )


def retry_dead_letters(services: Services, wanted: RetryDeadLetters) -> Plan:
    """Plan to retry one dead letter, or a group."""
    if (wanted.letter_id is None) == (wanted.group is None):
        raise CommandFailed("give either letter_id or group.", exit_code=ExitCode.USAGE)
    at = wanted.service
    if wanted.letter_id is not None:
        path = f"/dead-letters/{segment(wanted.letter_id)}"
        letter = services.get(at, path)
        names = ("id", "state", "orderId", "eventType", "error", "attempts")
        return Plan(
            service=at,
            paths=(f"{path}/retry",),
            body={},
            summary=f"Retry the dead letter {wanted.letter_id} at {at} now. If it fails, it stays parked.",
            command=_command("dead", "retry", wanted.letter_id, "--service", at),
            about={name: letter.get(name) for name in names},
            takes_by=True,
        )
    query = {"state": "PARKED", "group": wanted.group, "limit": LETTERS_LOOKED_AT}
    page = services.get(at, "/dead-letters", query)
    letters = [letter["id"] for letter in page["items"]]
    if not letters:
        raise CommandFailed(
            f"no dead letter of the group {wanted.group!r} is parked at {at}: see list_dead_letters."
        )
    count = f"{len(letters)}{'+' if page['nextCursor'] else ''}"
    return Plan(
        service=at,
        paths=("/dead-letters/retry",),
        body={"group": wanted.group, "ratePerSecond": wanted.rate_per_second},
        summary=f"Retry {count} dead letters of the group {wanted.group} at {at},"
        f" {wanted.rate_per_second} a second. Those that fail again stay parked.",
        command=_command(
            *("dead", "retry", "--service", at, "--group", str(wanted.group)),
            *("--rate", str(wanted.rate_per_second)),
        ),
        about={"letters": letters, "first": page["items"][0]},
        takes_by=True,
    )


def pause(services: Services, wanted: Pause) -> Plan:
    """Plan to pause a service, or one thing that it does, or to let it go on."""
    service = services.client(wanted.service)
    found = service.list("/pauses", {"state": "PAUSED"}, items_max=PAUSES_MAX)
    pauses: list[Any] = [service.read(raw, object) for raw in found]
    paused = [each for each in pauses if each["target"] == wanted.target]
    name = wanted.service if wanted.target == "service" else wanted.target
    if wanted.action == "pause":
        _require(wanted.reason, "reason", "pause")
        return Plan(
            service=wanted.service,
            paths=("/pauses",),
            body={"target": wanted.target, "reason": wanted.reason},
            summary=f"Pause {wanted.target} of {wanted.service}: orders are taken, but what is paused starts"
            " nothing until it is resumed.",
            command=_command("pause", name, "--reason", wanted.reason),
            about={"pausedNow": paused},
            takes_by=True,
        )
    if not paused:
        raise CommandFailed(
            f"{wanted.target!r} is not paused at {wanted.service}: system_status lists pauses."
        )
    return Plan(
        service=wanted.service,
        paths=tuple(f"/pauses/{segment(each['id'])}/resume" for each in paused),
        body={},
        summary=f"Let {wanted.target} of {wanted.service} go on: end all its pauses ({len(paused)}).",
        command=_command("resume", name),
        about={"pausedNow": paused},
        takes_by=True,
    )


def _order(order: Any) -> Any:
    """Return what of an order has to be as it was at the dry run."""
    names = (
        "id",
        "status",
        "userId",
        "items",
        "totalAmount",
        "currency",
        "updatedAt",
        "holds",
        "changes",
    )
    return {name: order.get(name) for name in names}


def _require(value: str | None, name: str, action: str) -> str:
    if not value:
        raise CommandFailed(f"to {action}, give {name}.", exit_code=ExitCode.USAGE)
    return value


def _command(*words: str) -> str:
    return shlex.join(("todoku", *words))


WRITING: Final = (
    Tool(
        name="cancel_order",
        description="Cancel an order. First call: a dry run.",
        arguments=CancelOrder,
        plans=cancel_order,
    ),
    Tool(
        name="hold_order",
        description="Hold an order so that it is not shipped, or release a hold. First call: a dry run.",
        arguments=HoldOrder,
        plans=hold_order,
    ),
    Tool(
        name="retry_dead_letters",
        description="Retry one dead letter, or all with the same error, once the cause is cured. First call:"
        " a dry run.",
        arguments=RetryDeadLetters,
        plans=retry_dead_letters,
    ),
    Tool(
        name="pause",
        description="Pause a service or one thing that it does, or let it go on. First call: a dry run.",
        arguments=Pause,
        plans=pause,
    ),
)
"""Tools that are offered with `--write` only."""
