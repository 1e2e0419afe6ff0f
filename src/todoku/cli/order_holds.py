"""`todoku order hold` and `todoku order release`."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.client import client, segment
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import day_and_time, printable
from todoku.cli.options import Json, Url
from todoku.cli.output import console, grid, suggest, write_object
from todoku.cli.responses import OrderHold
from todoku.orders.holds import HoldState

Id = Annotated[str, Parameter(name="ID")]
HoldId = Annotated[str, Parameter(name="HOLD")]


def hold(
    order_id: Id,
    /,
    *,
    holder: str,
    reason: str,
    expires: str | None = None,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Hold an order: the carrier is not called while a hold is open.

    Succeeds if the carrier has not been called yet, which shipping decides; the
    hold is requested until then. An order may have several holds at once.

    For example:

        todoku order hold 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --holder fraud \\
            --reason 'New card.'
        todoku order hold 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --holder address \\
            --reason 'No house number.' --expires 2030-01-02T03:04:05Z

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    holder
        Who holds the order: a team or a system.
    reason
        Why it is held.
    expires
        When the hold ends by itself, as in 2030-01-02T03:04:05Z; default: when it is released.
    """
    orders = client("orders", url, settings_to_reach(addresses).settings)
    wish = {"holder": holder, "reason": reason} | (
        {} if expires is None else {"expiresAt": expires}
    )
    answer = orders.send(
        "POST",
        f"/orders/{segment(order_id)}/holds",
        msgspec.json.encode(wish),
        find_out=f"Check with `todoku order show {printable(order_id)}` before you repeat it.",
    )
    if json:
        write_object(answer)
        return
    held = orders.read(answer, OrderHold)
    _print(held)
    suggest(f"todoku order release {printable(order_id)} {held.id}", "release it")


def release(
    order_id: Id,
    hold_id: HoldId,
    /,
    *,
    json: Json = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Release a hold of an order.

    The carrier is called when no hold is open any more. A hold that does not
    hold the order any more stays as it is.

    For example:

        todoku order release 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e \\
            0198c2f1-31c4-7e95-a8d2-7b0c4f6e1d23

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    hold_id
        The id of the hold, which `todoku order hold` and `todoku order show` print.
    """
    orders = client("orders", url, settings_to_reach(addresses).settings)
    answer = orders.send(
        "POST",
        f"/orders/{segment(order_id)}/holds/{segment(hold_id)}/release",
        b"",
        find_out="Releasing is safe to repeat.",
    )
    if json:
        write_object(answer)
        return
    _print(orders.read(answer, OrderHold))
    suggest(f"todoku order watch {printable(order_id)}", "watch the order until it ends")


def described(held: OrderHold) -> str:
    """Return a hold in words: what became of it, by whom, why and when."""
    until = f" until {day_and_time(held.expires_at)}" if held.expires_at else ""
    text = f"{held.state} by {held.holder} since {day_and_time(held.requested_at)}{until}"
    if held.state not in (HoldState.REQUESTED, HoldState.CONFIRMED):
        by = f" by {held.released_by}" if held.released_by else ""
        at = held.released_at or held.decided_at
        text = f"of {held.holder}, {held.state}{by}{f' {day_and_time(at)}' if at else ''}"
    refusal = f" {held.refusal}" if held.refusal else ""
    return f"{text} ({held.reason}){refusal}"


def _print(held: OrderHold) -> None:
    rows = {
        "hold": held.id,
        "holder": held.holder,
        "reason": held.reason,
        "state": held.state,
        "expires": held.expires_at and day_and_time(held.expires_at),
        "released": held.released_at and day_and_time(held.released_at),
        "refusal": held.refusal,
    }
    console().print(grid((name, value) for name, value in rows.items() if value))
