"""The table that says how far the whole catalogue is published, and the agenda that goes on with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, bindparam, select

from todoku.database import Many, Query, Timestamp, table, to_microseconds, upsert
from todoku.engine import Agenda, Due
from todoku.inventory.domain import PAGE, Publication, PublishCatalogue, Stock, publish_page

KEY: Final = "catalogue"
"""The key of the only row."""

LOOK_SECONDS: Final = 30.0
"""How often it is looked for what another process has begun to publish, and left."""


class Publications:
    """At most one row: how far all products are published."""

    def __init__(self, metadata: MetaData, products: Table) -> None:
        self.table = table(
            "catalogue_publications",
            metadata,
            Column("id", Text, primary_key=True),
            Column("after", Text, nullable=False),
            Column("due_at", Timestamp),
        )
        self._agenda_name = str(self.table.c.due_at)
        self._load = Query(select(self.table).with_for_update())
        self._save = Many(upsert(self.table, ["id"], ["after", "due_at"]))
        self._page = Query(
            select(products.c.id)
            .where(products.c.id > bindparam("after"))
            .order_by(products.c.id)
            .limit(PAGE)
        )

    def concern(self, subject: Any) -> bool:
        """Return whether a subject is about the publication of all products."""
        if type(subject) is Due:
            return subject.agenda.name == self._agenda_name
        return type(subject) is PublishCatalogue

    def load(self, connection: Connection) -> tuple[Publication | None, Sequence[str]]:
        """Load and lock the publication; return it, and the ids of the products that are next."""
        for row in self._load(connection):
            publication = Publication(after=row.after, due_at=row.due_at)
            return publication, [each.id for each in self._page(connection, after=row.after)]
        return None, ()

    def save(self, connection: Connection, publication: Publication) -> None:
        """Write how far all products are published."""
        due_at = to_microseconds(publication.due_at)
        self._save(connection, [{"id": KEY, "after": publication.after, "due_at": due_at}])

    def agenda(self) -> Agenda[Stock]:
        """Return the agenda that publishes the next products."""
        return Agenda(
            due_at=self.table.c.due_at,
            key=self.table.c.id,
            decide=publish_page,
            due_at_of=_due_at,
            key_of=lambda _: KEY,
            look_seconds=LOOK_SECONDS,
        )


def _due_at(state: Any) -> datetime | None:
    publication: Publication | None = state.publication
    return None if publication is None else publication.due_at
