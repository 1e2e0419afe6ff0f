"""The table of API keys: the same in every service. One creates and revokes them, the others keep what its
events tell."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Text, bindparam, select, update

from todoku.database import Integer64, Many, Query, Timestamp, table, to_microseconds, upsert
from todoku.events import ApiKeyEvent
from todoku.identity.keys import ApiKey, is_digest, is_key_id

_CHANGING = ("version", "digest", "owner", "scopes", "expires_at", "revoked_at")


class InvalidApiKey(Exception):
    """A message tells of a key that no service can have created."""


def keep_key(state: Any, event: Any, now: datetime) -> tuple[Any, list[Any]]:
    """Decide nothing about an API key: the engine keeps it. A service lists this as the handler of the
    events about keys."""
    return state, []


def require_valid_key(event: ApiKeyEvent) -> None:
    """Raise `InvalidApiKey` for an event that no service can have published."""
    if not (is_key_id(event.key_id) and is_digest(event.digest) and event.version in (1, 2)):
        raise InvalidApiKey(
            "The id, the digest or the version of the key looks otherwise: discard the message."
        )
    if (event.version == 2) is (event.revoked_at is None):
        raise InvalidApiKey(
            "A key is revoked in its version 2, and only then: discard the message."
        )


class ApiKeys:
    """The API keys that a service knows. None is ever deleted."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "api_keys",
            metadata,
            Column("id", Text, primary_key=True),
            Column("version", Integer64, nullable=False),
            Column("digest", Text, nullable=False),
            Column("owner", Text, nullable=False),
            Column("scopes", Text, nullable=False),
            Column("created_at", Timestamp, nullable=False),
            Column("created_by", Text),
            Column("expires_at", Timestamp),
            Column("revoked_at", Timestamp),
            Column("last_used_at", Timestamp),
            clustered=True,
        )
        columns = self.table.c
        # What is known already of a later version stays, in whatever order events arrive.
        self._upsert = Many(upsert(self.table, ["id"], _CHANGING, growing="version"))
        self._all = Query(select(self.table).order_by(columns.id))
        self._note_use = Many(
            update(self.table)
            .where(columns.id == bindparam("key"))
            .values(last_used_at=bindparam("used_at"))
        )

        self._rename = Many(
            update(self.table)
            .where(columns.id == bindparam("key"))
            .values(owner=bindparam("new_owner"))
        )

    def keep(self, connection: Connection, keys: Iterable[ApiKey]) -> None:
        """Add these keys; those that are known get the state that they have now."""
        self._upsert(connection, [_row(key) for key in keys])

    def read(self, connection: Connection) -> dict[str, ApiKey]:
        """Return every key, by its id."""
        return {row.id: _key(row) for row in self._all(connection)}

    def of_owner(self, connection: Connection, owner: str) -> list[ApiKey]:
        """Return the keys of an owner."""
        return [key for key in self.read(connection).values() if key.owner == owner]

    def rename_owners(self, connection: Connection, names: Mapping[str, str]) -> None:
        """Replace the owners of these keys, by id."""
        rows = [{"key": key, "new_owner": name} for key, name in sorted(names.items())]
        self._rename(connection, rows)

    def last_used(self, connection: Connection) -> dict[str, datetime]:
        """Return when keys were used last, as far as it is written."""
        columns = self.table.c
        rows = connection.execute(
            select(columns.id, columns.last_used_at).where(columns.last_used_at.is_not(None))
        )
        return {row.id: row.last_used_at for row in rows}

    def note_use(self, connection: Connection, used: Mapping[str, datetime]) -> None:
        """Write when these keys were used last."""
        rows = [{"key": key, "used_at": to_microseconds(at)} for key, at in sorted(used.items())]
        self._note_use(connection, rows)


def key_of_event(event: ApiKeyEvent) -> ApiKey:
    """Return the key that an event tells of."""
    return ApiKey(
        id=event.key_id,
        digest=event.digest,
        owner=event.owner,
        scopes=event.scopes,
        created_at=event.created_at,
        expires_at=event.expires_at,
        revoked_at=event.revoked_at,
    )


def event_of_key(kind: type[ApiKeyEvent], key: ApiKey) -> ApiKeyEvent:
    """Return the event that tells of a key."""
    return kind(
        key_id=key.id,
        version=key.version,
        digest=key.digest,
        owner=key.owner,
        scopes=key.scopes,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "version": key.version,
        "digest": key.digest,
        "owner": key.owner,
        "scopes": json.dumps(key.scopes),
        "created_at": to_microseconds(key.created_at),
        "created_by": key.created_by,
        "expires_at": to_microseconds(key.expires_at),
        "revoked_at": to_microseconds(key.revoked_at),
        "last_used_at": None,
    }


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        digest=row.digest,
        owner=row.owner,
        scopes=tuple(json.loads(row.scopes)),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
