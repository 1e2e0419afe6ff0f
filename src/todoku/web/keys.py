"""HTTP operations on API keys."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, MetaData

from todoku.engine import ApiKeys
from todoku.identity import scopes
from todoku.identity.keys import ApiKey, new_key, parse
from todoku.identity.scopes import KEYS_WRITE, ROLES, SCOPE_PATTERN, expand
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.fields import Expiry, Who
from todoku.web.guard import missing_scope
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.problems import DATABASE_UNAVAILABLE, UNKNOWN_KEY, Problem
from todoku.web.reply import Reply

api_keys = ApiKeys(MetaData())
"""The table of API keys, the same in every service."""

ScopeName = Annotated[
    str,
    Meta(
        pattern=SCOPE_PATTERN,
        max_length=140,
        description=f"A scope, or a role: {', '.join(ROLES)}.",
        examples=["orders:read", "operator"],
    ),
]


class NewKey(Body, frozen=True, kw_only=True):
    """A key for `owner`, whom it stands for: a person, or a program. It is the `userId` where it
    has `:own` scopes."""

    owner: Who
    scopes: Annotated[tuple[ScopeName, ...], Meta(min_length=1, max_length=50)]
    expires_at: Expiry | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An API key without its secret. `lastUsedAt` is when this service was last called with it, to the
    minute."""

    id: str
    owner: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new API key; `key` is shown this once."""

    id: str
    key: str
    owner: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


class Keys(msgspec.Struct, frozen=True):
    """All API keys that this service knows, by id."""

    items: list[KeyView]


def key_operations(backend: Backend) -> list[Operation]:
    """Return the operations that show API keys, the same in every service."""
    routes = KeyRoutes(backend)
    key_id = {"keyId": Annotated[str, Meta(description="The id of an API key.")]}
    return [
        Operation(
            id="listKeys",
            method="GET",
            path="/keys",
            scope=KEYS_WRITE,
            summary="List the API keys that this service knows",
            handle=routes.list,
            responses=[SuccessResponse(status=200, description="The keys.", content=Keys)],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="getKey",
            method="GET",
            path="/keys/{keyId}",
            path_parameters=key_id,
            scope=KEYS_WRITE,
            summary="Get an API key, without its secret",
            handle=routes.show,
            responses=[SuccessResponse(status=200, description="The key.", content=KeyView)],
            problems=[UNKNOWN_KEY, DATABASE_UNAVAILABLE],
        ),
    ]


def key_changing_operations(backend: Backend) -> list[Operation]:
    """Return the operations of the one service that creates and revokes API keys."""
    routes = KeyRoutes(backend)
    key_id = {"keyId": Annotated[str, Meta(description="The id of an API key.")]}
    return [
        Operation(
            id="createKey",
            method="POST",
            path="/keys",
            scope=KEYS_WRITE,
            costly=True,
            summary="Create an API key",
            description=ABOUT_CREATING,
            handle=routes.create,
            body=NewKey,
            examples={"a person": {"owner": "alice", "scopes": ["operator"]}},
            responses=[
                SuccessResponse(
                    status=201,
                    description="The key; it is not shown again.",
                    content=CreatedKey,
                    headers={"Location": "The path of the key."},
                )
            ],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="revokeKey",
            method="POST",
            path="/keys/{keyId}/revoke",
            path_parameters=key_id,
            scope=KEYS_WRITE,
            summary="Revoke an API key",
            description=ABOUT_REVOKING,
            handle=routes.revoke,
            responses=[SuccessResponse(status=200, description="It is revoked.", content=KeyView)],
            problems=[UNKNOWN_KEY, DATABASE_UNAVAILABLE],
        ),
    ]


class KeyRoutes:
    """Handlers of the operations on API keys."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        return Reply(200, Keys(list((await self._backend.read(_views)).values())))

    async def show(self, call: Call) -> Reply:
        return Reply(200, await self._view(call.path["keyId"]))

    async def create(self, call: Call) -> Reply:
        wanted: NewKey = call.body
        granted = expand(wanted.scopes)
        _require_granted(call, granted)
        key, key_id = new_key()
        parsed = parse(key)
        assert parsed is not None
        created = ApiKey(
            id=key_id,
            digest=parsed[1],
            owner=wanted.owner,
            scopes=tuple(sorted(granted)),
            created_at=self._backend.process.clock.now(),
            created_by=call.context.actor,
            expires_at=wanted.expires_at,
        )
        await self._backend.process.change_key(created)
        view = CreatedKey(
            id=key_id,
            key=key,
            owner=created.owner,
            scopes=created.scopes,
            expires_at=created.expires_at,
        )
        headers = {"Location": f"/keys/{key_id}", "Cache-Control": "no-store"}
        return Reply(201, view, headers)

    async def revoke(self, call: Call) -> Reply:
        key_id = call.path["keyId"]
        found = (await self._backend.read(api_keys.read)).get(key_id)
        if found is None:
            raise unknown_key(key_id)
        if found.revoked_at is None:
            now = self._backend.process.clock.now()
            await self._backend.process.change_key(msgspec.structs.replace(found, revoked_at=now))
        return Reply(200, await self._view(key_id))

    async def _view(self, key_id: str) -> KeyView:
        view = (await self._backend.read(_views)).get(key_id)
        if view is None:
            raise unknown_key(key_id)
        return view


def unknown_key(key_id: str) -> Problem:
    """Return the problem that no API key has this id."""
    return Problem(UNKNOWN_KEY, f"There is no API key {key_id!r}: see GET /keys.")


def _require_granted(call: Call, granted: frozenset[str]) -> None:
    """Raise `Problem` if the caller does not have each of these scopes, or more, itself."""
    held: frozenset[str] | None = getattr(call.principal, "scopes", None)
    if held is None:
        return
    for scope in sorted(granted):
        if scope not in held and scope.removesuffix(scopes.OWN_SUFFIX) not in held:
            raise missing_scope(scope)


def _views(connection: Connection) -> dict[str, KeyView]:
    used = api_keys.last_used(connection)
    return {
        key.id: KeyView(
            id=key.id,
            owner=key.owner,
            scopes=key.scopes,
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=used.get(key.id),
        )
        for key in api_keys.read(connection).values()
    }


ABOUT_CREATING = """\
The key is in the response, and nowhere else: only the SHA-256 of its secret is kept. Every service knows it
within a moment. Nobody can create a key that permits more than their own credential. An Idempotency-Key has
no effect: repeated, the request creates another key."""

ABOUT_REVOKING = """\
Every service that is reached refuses the key within seconds; see GET /keys/{keyId} at each of them. Revoking
it again changes nothing."""
