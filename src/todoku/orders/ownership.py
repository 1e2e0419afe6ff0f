"""Keep callers with an `:own` scope to their own orders: those of others do not exist for them."""

from sqlalchemy import Connection, select

from todoku.orders.problems import unknown_order
from todoku.orders.store import orders
from todoku.web import Backend, Call
from todoku.web.guard import missing_scope


def require_own_user(call: Call, user_id: str, scope: str) -> None:
    """Raise `Problem` if a caller that is limited to its own orders names another user."""
    if call.owner is not None and user_id != call.owner:
        raise missing_scope(scope)


async def require_own_order(backend: Backend, call: Call, order_id: str) -> None:
    """Raise `Problem` as for an unknown order if the caller is limited to its own, and this is another's."""
    if call.owner is not None and await backend.read(_user_of, order_id) != call.owner:
        raise unknown_order(order_id)


def _user_of(connection: Connection, order_id: str) -> str | None:
    user_id: str | None = connection.scalar(select(orders.c.user_id).where(orders.c.id == order_id))
    return user_id
