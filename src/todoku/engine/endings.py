"""Tells of entities that have ended: those who wait for one here, and at the other replicas."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from todoku.broker.port import Broker
from todoku.engine.service import Service
from todoku.engine.waiters import Waiters

log = structlog.get_logger(__name__)

KEYS_MAX: Final = 500
"""How many keys one message about ended entities has: it fits into the smallest `max_payload`."""

_encode_keys = msgspec.json.Encoder().encode
_decode_keys = msgspec.json.Decoder(tuple[str, ...]).decode


class Endings:
    """Ends the waits for entities that have ended. With `shared`, other replicas are told too."""

    def __init__(self, service: Service, broker: Broker, *, shared: bool) -> None:
        self._broker = broker
        self._subject = f"ended.{service.name}"
        self._shared = shared and bool(service.endings)
        self._waiters = Waiters()

    async def start(self) -> None:
        """Listen to the other replicas."""
        if self._shared:
            await self._broker.listen(self._subject, self._on_message)

    def wait_for(self, key: str) -> asyncio.Future[None] | None:
        """Return a future that is done once an entity has ended; None if too many callers wait."""
        return self._waiters.add(key)

    def tell(self, keys: Sequence[str]) -> None:
        """End the waits for these entities, at the other replicas as well."""
        self._waiters.tell(keys)
        if self._shared:
            for n in range(0, len(keys), KEYS_MAX):
                self._broker.notify(self._subject, _encode_keys(keys[n : n + KEYS_MAX]))

    def _on_message(self, body: bytes) -> None:
        try:
            self._waiters.tell(_decode_keys(body))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("ended_undecodable", error=str(error))
