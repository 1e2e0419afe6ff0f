"""The names in the audit log, each under a salted digest. Rows hold digests, so that a name can be erased."""

import os
from collections.abc import Callable, Collection
from hashlib import sha256

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Text, bindparam, delete, select

from todoku.database import Many, Query, among, insert_ignoring_duplicates, table

SALT_BYTES = 16


class AuditNames:
    """The table of names: who a digest stands for. Without its salt, no digest tells whose it is."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "audit_names",
            metadata,
            Column("digest", Text, primary_key=True),
            Column("name", Text, nullable=False, unique=True),
            Column("salt", LargeBinary, nullable=False),
        )
        columns = self.table.c
        # Another process may have added the same name.
        self._insert = Many(insert_ignoring_duplicates(self.table))
        self._by_name = Query(
            select(columns.digest, columns.name).where(among(columns.name, "names"))
        )
        self._by_digest = Query(
            select(columns.digest, columns.name).where(among(columns.digest, "digests"))
        )
        self._erase = delete(self.table).where(columns.name == bindparam("erased"))

    def digests(self, connection: Connection, names: Collection[str]) -> dict[str, str]:
        """Return the digests of these names, as far as they have one."""
        if not names:
            return {}
        return {row.name: row.digest for row in self._by_name(connection, names=sorted(names))}

    def names(self, connection: Connection, digests: Collection[str]) -> dict[str, str]:
        """Return whom these digests stand for; nobody if the name was erased."""
        if not digests:
            return {}
        found = self._by_digest(connection, digests=sorted(digests))
        return {row.digest: row.name for row in found}

    def add(
        self,
        connection: Connection,
        names: Collection[str],
        random: Callable[[int], bytes] = os.urandom,
    ) -> dict[str, str]:
        """Return the digests of these names; one that is new gets a salt."""
        found = self.digests(connection, names)
        if new := sorted(set(names) - found.keys()):
            salts = [(name, random(SALT_BYTES)) for name in new]
            rows = [
                {"digest": digest_of(name, salt), "name": name, "salt": salt}
                for name, salt in salts
            ]
            self._insert(connection, rows)
            found |= self.digests(connection, new)
        return found

    def all(self, connection: Connection) -> list[str]:
        """Return every name."""
        return list(connection.scalars(select(self.table.c.name)))

    def wrong(self, connection: Connection) -> list[str]:
        """Return the digests that are not those of their names: somebody has exchanged the names."""
        columns = self.table.c
        found = connection.execute(select(columns.digest, columns.name, columns.salt))
        return [row.digest for row in found if digest_of(row.name, row.salt) != row.digest]

    def erase(self, connection: Connection, name: str) -> None:
        """Erase a name and its salt: nobody can tell any more which rows are about it."""
        connection.execute(self._erase, {"erased": name})


def digest_of(name: str, salt: bytes) -> str:
    """Return the salted digest of a name."""
    return sha256(salt + name.encode(errors="surrogatepass")).hexdigest()[:32]
