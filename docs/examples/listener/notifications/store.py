"""The table of the notifications service."""

from sqlalchemy import Column, MetaData, Text

from todoku.database import Timestamp, table
from todoku.engine import KeyedStore
from todoku.notifications.domain import Notification

metadata = MetaData()

notifications = table(
    "notifications",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("noted_at", Timestamp, nullable=False),
)

store = KeyedStore(Notification, notifications, key="order_id")
