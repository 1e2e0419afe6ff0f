"""Simulate an operator who creates and revokes API keys, and check what the services know of them.

K1: a key whose revocation was answered stays revoked; in the end every service knows the same of each key.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Final

import msgspec

from todoku.contracts import OrdersApiKeyChangedEvent
from todoku.events import fact_id
from todoku.identity.keys import ApiKey
from todoku.simulated import Scheduled, World

LISTENERS: Final = ("inventory", "shipping")
REVOKE_SHARE: Final = 0.6
LOOK_AGAIN_SECONDS: Final = 1.0

_KEYS = "SELECT id, version FROM api_keys ORDER BY id"


class Keys:
    """Creates keys, and revokes some of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: dict[str, ApiKey] = {}
        """Keys as they were answered last."""
        self._recovering: set[str] = set()
        """Keys that were lost by a restore and have to come back from the stream."""

    def scheduled(self) -> Mapping[str, Scheduled]:
        """Return when keys are created and revoked."""
        return {
            "change-api-key": Scheduled(
                action=self._change, mean_seconds=(0.0, 0.0, 0.0, 0.0, 12.0), family="keys"
            )
        }

    def restored(self) -> None:
        """Forget what is lost and not in the stream either."""
        for key in self._lacking():
            if self.world.is_stored(_event_id(key)):
                self._recovering.add(key.id)
            else:
                del self._known[key.id]

    def check_commit(self) -> None:
        """Check K1 at orders: what was answered is there."""
        for key in self._lacking():
            if key.id not in self._recovering:
                self._fail(f"key {key.id} was answered in version {key.version} and is not so")

    def check_end(self) -> None:
        """Check K1 once the system is quiescent."""
        self._recovering.clear()
        self.check_commit()
        here = dict(self.world.rows(_KEYS))
        for service in LISTENERS if here else ():
            there = dict(self.world.rows_of(service, _KEYS))
            for key_id in sorted(here.keys() | there.keys()):
                versions = here.get(key_id), there.get(key_id)
                if versions[0] != versions[1]:
                    problem = f"version {versions[0]} of key {key_id} is {versions[1]} at {service}"
                    self._fail(problem)

    async def _change(self, random: Random) -> None:
        valid = [key for key in self._known.values() if key.revoked_at is None]
        if valid and random.random() < REVOKE_SHARE:
            await self._until_answered(self._revoked(random.choice(valid)))
            return
        key = self._new(random)
        await self._until_answered(key)
        if random.random() < REVOKE_SHARE:  # At once: its two events may overtake each other.
            await self._until_answered(self._revoked(key))

    async def _until_answered(self, key: ApiKey) -> None:
        """Send it until it is known to be committed, as whoever looks at the list of keys does."""
        while not await self.world.change_key(key):
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if dict(self.world.rows(_KEYS)).get(key.id, 0) >= key.version:
                break
        if dict(self.world.rows(_KEYS)).get(key.id, 0) >= key.version:  # Else restored meanwhile.
            self._known[key.id] = key
        else:
            self._known.pop(key.id, None)

    def _new(self, random: Random) -> ApiKey:
        return ApiKey(
            id=f"{random.getrandbits(64):016x}",
            digest=f"{random.getrandbits(256):064x}",
            owner="chance",
            scopes=("orders:read",),
            created_at=self.world.start,
        )

    def _revoked(self, key: ApiKey) -> ApiKey:
        at = self.world.start + timedelta(seconds=1)
        return msgspec.structs.replace(key, revoked_at=at)

    def _lacking(self) -> list[ApiKey]:
        """Return the keys that are not, or no longer, in the state that was answered."""
        rows = dict(self.world.rows(_KEYS))
        return [key for key in self._known.values() if rows.get(key.id, 0) < key.version]

    def _fail(self, problem: str) -> None:
        self.world.fail("K1", problem)


def _event_id(key: ApiKey) -> str:
    """Return the id of the event that tells of this state of the key."""
    return fact_id(key.id, f"{OrdersApiKeyChangedEvent.__name__} {key.version}")
