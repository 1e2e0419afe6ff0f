"""The queue of everything that waits for a service's writer."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from todoku.engine.messages import (
    IncomingEvent,
    Message,
    PendingCommand,
    Receipt,
    StoredEvents,
    UndecodableMessage,
)

RECEIPTS_LINGER_SECONDS = 0.05
"""How long receipts wait to share a commit with other messages. No caller waits for them."""

LARGE_BATCH_MESSAGES = 30
"""A batch with at least so many messages is large."""

LINGER_SECONDS = 0.005
"""How long the writer waits after a large batch, so that more messages share the fixed cost of the next
one (a commit, a batch to the broker)."""

PAUSES_MAX = 100
"""How many commands about pauses wait at most."""


class MailboxFull(Exception):
    """The service has too many pending commands: try again later."""


class RecoveryPending(MailboxFull):
    """It is not known yet whether the database lacks something, or not all of it is replayed."""

    def __init__(self) -> None:
        super().__init__("It is not known yet whether the database lacks something: try later.")


class Mailbox:
    """Three lanes (messages, commands, receipts), each with its share of a batch.

    Commands are refused beyond `commands_max`. Messages are bounded by the credit given to the
    broker; receipts by the pending deliveries, and those beyond `receipts_max` are dropped, because a
    lost receipt costs one redelivery. All methods run on the event loop's thread.
    """

    def __init__(self, *, commands_max: int, receipts_max: int) -> None:
        self._commands_max = commands_max
        self._receipts_max = receipts_max
        self._commands: deque[Message] = deque()
        self._messages: deque[Message] = deque()
        self._receipts: deque[Message] = deque()
        self._pauses: deque[PendingCommand] = deque()
        self._arrived = asyncio.Event()
        self._emptied = asyncio.Event()
        self._last_batch_large = False

    def __len__(self) -> int:
        waiting = len(self._commands) + len(self._messages) + len(self._receipts)
        return waiting + len(self._pauses)

    def put_command(self, command: PendingCommand) -> None:
        """Add a command, or raise `MailboxFull`."""
        if len(self._commands) >= self._commands_max:
            raise MailboxFull(
                f"{self._commands_max} commands are pending already: try again later."
            )
        self._commands.append(command)
        self._arrived.set()

    def put_pause(self, command: PendingCommand) -> None:
        """Add a command about a pause, which is in no batch, or raise `MailboxFull`."""
        if len(self._pauses) >= PAUSES_MAX:
            raise MailboxFull(f"{PAUSES_MAX} pauses are pending already: try again later.")
        self._pauses.append(command)
        self._arrived.set()

    def take_pauses(self) -> list[PendingCommand]:
        """Remove and return the commands about pauses, the oldest first."""
        taken = list(self._pauses)
        self._pauses.clear()
        return taken

    def put_effect_result(self, command: PendingCommand) -> None:
        """Add the result of an effect: bounded by the running effects, never rejected."""
        self._commands.append(command)
        self._arrived.set()

    def put_messages(self, messages: Sequence[IncomingEvent | UndecodableMessage]) -> None:
        """Add messages of the stream."""
        self._messages.extend(messages)
        self._arrived.set()

    def put_receipt(self, receipt: Receipt) -> None:
        """Add a receipt, if there is room. The wait to share a commit begins with the first one."""
        if len(self._receipts) < self._receipts_max:
            if not self:
                self._arrived.set()
            self._receipts.append(receipt)

    def put_stored(self, stored: StoredEvents) -> None:
        """Add that events are stored; joined with what was stored before, and never dropped."""
        last = self._receipts[-1] if self._receipts else None
        if isinstance(last, StoredEvents) and last.up_to == stored.after:
            self._receipts[-1] = StoredEvents(last.after, stored.up_to)
            return
        if not self:
            self._arrived.set()
        self._receipts.append(stored)

    def wake(self) -> None:
        """Let the writer look for due rows."""
        self._arrived.set()

    async def wait_for_work(self, until: datetime | None, now: datetime) -> None:
        """Wait until there is enough for a batch, or until `until`."""
        await self._wait_for_any(until, now)
        if self._last_batch_large:
            await asyncio.sleep(LINGER_SECONDS)

    async def _wait_for_any(self, until: datetime | None, now: datetime) -> None:
        if self._commands or self._messages or self._pauses:
            return
        timeout = None if until is None else max(0.0, (until - now).total_seconds())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if not self:
                    self._emptied.set()
                    self._arrived.clear()
                    await self._arrived.wait()
                if len(self) == len(self._receipts) > 0:
                    await self._wait_to_share_commit()

    async def wait_until_empty(self) -> None:
        """Wait until the mailbox is empty and the writer asks for more."""
        self._emptied.clear()
        self._arrived.set()
        await self._emptied.wait()

    def take(self, limit: int) -> list[Message]:
        """Remove and return up to `limit` messages, oldest first in each lane.

        Messages of the stream get three fifths, since a command leads to about three of them and
        running sagas go before new ones; the others one fifth each. Unused shares pass to the next.
        """
        lanes = (self._messages, self._commands, self._receipts)
        shares = [
            min(len(lane), limit * fifths // 5)
            for lane, fifths in zip(lanes, (3, 1, 1), strict=True)
        ]
        spare = limit - sum(shares)
        for i, lane in enumerate(lanes):
            more = min(spare, len(lane) - shares[i])
            shares[i] += more
            spare -= more
        self._last_batch_large = sum(shares) >= LARGE_BATCH_MESSAGES
        return [
            lane.popleft() for lane, share in zip(lanes, shares, strict=True) for _ in range(share)
        ]

    async def _wait_to_share_commit(self) -> None:
        """Wait up to `RECEIPTS_LINGER_SECONDS` for messages that receipts can share a commit with."""
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(RECEIPTS_LINGER_SECONDS):
                await self._arrived.wait()
