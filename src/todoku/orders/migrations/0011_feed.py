"""All events of all histories are in a feed, those from before too."""

import msgspec
import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_table

EVENTS_IN_A_ROW = 200

# An event has a place behind all that its order recorded before, also if a clock was set back.
HISTORIES = sa.text(
    "SELECT order_id, event_id FROM (SELECT order_id, event_id, sequence, max(recorded_at) OVER"
    " (PARTITION BY order_id ORDER BY sequence) AS recorded FROM order_events) AS histories"
    " ORDER BY recorded, order_id, sequence"
)

# A process of the version before does not know the feed, and runs beside this one during an upgrade.
FUNCTION = """\
CREATE FUNCTION add_event_to_feed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO feed_arrivals (events, arrived_at) VALUES (
    convert_to(json_build_array(json_build_array(NEW.order_id, NEW.event_id))::text, 'UTF8'),
    NEW.recorded_at
  );
  RETURN NULL;
END $$"""
TRIGGER = """\
CREATE TRIGGER order_events_of_earlier_versions AFTER INSERT ON order_events
FOR EACH ROW WHEN (NEW.in_feed IS NULL) EXECUTE FUNCTION add_event_to_feed()"""


def upgrade() -> None:
    op.add_column("order_events", sa.Column("in_feed", Integer64))
    create_table(
        "feed",
        sa.Column("position", Integer64, primary_key=True, autoincrement=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
    )
    create_table(
        "feed_arrivals",
        sa.Column("id", Integer64, primary_key=True),
        sa.Column("events", sa.LargeBinary, nullable=False),
        sa.Column("arrived_at", Timestamp, nullable=False),
    )
    create_table(
        "feed_sequencer", sa.Column("id", Integer64, primary_key=True, autoincrement=False)
    )
    op.execute("INSERT INTO feed_sequencer VALUES (1)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(FUNCTION)
        op.execute(TRIGGER)
    _add_earlier_events()


def _add_earlier_events() -> None:
    connection = op.get_bind()
    add = sa.text("INSERT INTO feed (position, events) VALUES (:position, :events)")
    found = connection.execute(HISTORIES.execution_options(stream_results=True))
    position = 0
    for rows in found.partitions(EVENTS_IN_A_ROW):
        keys = [tuple(row) for row in rows]
        position += len(keys)
        connection.execute(add, {"position": position, "events": msgspec.json.encode(keys)})
