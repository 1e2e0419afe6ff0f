"""Check that persons who were erased are still erased where their orders are."""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import Connection, MetaData

from todoku.audit.part import Finding
from todoku.engine import EngineTables

ERASED: Final = "A2"
"""The invariant: whoever was erased stays erased."""

_erasures = EngineTables(MetaData()).erasures


def persons_back(owner: str, connections: Mapping[str, Connection]) -> Iterator[Finding]:
    """Yield a finding if the service that accepts orders, the `owner`, lacks erasures that others have."""
    # Its own last: the others carry out later what it has decided.
    others = {
        each.id
        for name, connection in connections.items()
        if name != owner
        for each in _erasures.all(connection)
    }
    lacking = others - {each.id for each in _erasures.all(connections[owner])}
    if lacking:
        erasures = "1 erasure" if len(lacking) == 1 else f"{len(lacking):,} erasures"
        yield Finding(
            ERASED,
            owner,
            f"{erasures} of persons that other services have carried out are missing in its database: it was"
            " restored from an older backup, and has these persons again",
            "Put the folder `erasures` of the data folder back and start the service again. If it is lost,"
            " erase the persons again: `todoku person erase`.",
        )
