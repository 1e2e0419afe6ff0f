"""The table of the loyalty service, and which function handles which event."""

from sqlalchemy import Column, Connection, MetaData, Text, func, select

from loyalty.domain import Award, award_points
from todoku.contracts import OrderCompletedEvent
from todoku.database import Integer64, table
from todoku.engine import KeyedStore, Service
from todoku.settings import Settings

awards = table(
    "awards",
    MetaData(),
    Column("order_id", Text, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("points", Integer64, nullable=False),
)


def loyalty_service(_: Settings) -> Service:
    """Build the service."""
    return Service(
        name="loyalty",
        store=KeyedStore(Award, awards, key="order_id"),
        event_handlers={OrderCompletedEvent: award_points},
    )


def points_of(connection: Connection, user_id: str) -> int:
    """Return the points that a customer has."""
    query = select(func.sum(awards.c.points)).where(awards.c.user_id == user_id)
    return connection.scalar(query) or 0
