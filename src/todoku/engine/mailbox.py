"""The one place where everything that a service has to decide on waits for the writer."""

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
    UndecodableMessage,
)

RECEIPTS_LINGER_SECONDS = 0.05
"""How long receipts wait for something to share a commit with. Nobody waits for them."""

LARGE_BATCH_MESSAGES = 30
"""A batch of so many messages is a large one."""

LINGER_SECONDS = 0.005
"""How long more is let gather after a large batch: what a batch costs however small it is (a commit, a
batch to the broker) is shared by more then, and everybody is served sooner."""


class MailboxFull(Exception):
    """More is asked of this service than it can do: come back later."""


class Mailbox:
    """Three lanes (messages, commands, receipts), each with its share of a batch.

    Commands are refused beyond `commands_max`. Messages are bounded by the credit given to the
    broker; receipts by the events outstanding, and those beyond `receipts_max` are dropped, because a
    lost receipt costs one repeat. All methods run on the event loop's thread.
    """

    def __init__(self, *, commands_max: int, receipts_max: int) -> None:
        self._commands_max = commands_max
        self._receipts_max = receipts_max
        self._commands: deque[Message] = deque()
        self._messages: deque[Message] = deque()
        self._receipts: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._emptied = asyncio.Event()
        self._last_batch_large = False

    def __len__(self) -> int:
        return len(self._commands) + len(self._messages) + len(self._receipts)

    def ask(self, asked: PendingCommand) -> None:
        """Put a command in, or raise `MailboxFull`."""
        if len(self._commands) >= self._commands_max:
            raise MailboxFull(
                f"{self._commands_max} requests are waiting already: try again later."
            )
        self._commands.append(asked)
        self._arrived.set()

    def answer_effect(self, asked: PendingCommand) -> None:
        """Put in what came back from an effect: bounded by the effects under way, never refused."""
        self._commands.append(asked)
        self._arrived.set()

    def deliver(self, messages: Sequence[IncomingEvent | UndecodableMessage]) -> None:
        """Put messages from the stream in."""
        self._messages.extend(messages)
        self._arrived.set()

    def receipt(self, receipt: Receipt) -> None:
        """Put a receipt in, if there is room. Its wait for company begins with the first one."""
        if len(self._receipts) < self._receipts_max:
            if not self:
                self._arrived.set()
            self._receipts.append(receipt)

    def wake(self) -> None:
        """Let the writer look at what is due."""
        self._arrived.set()

    async def arrival(self, until: datetime | None, now: datetime) -> None:
        """Wait until something is here that is worth a batch, or until `until`."""
        await self._something(until, now)
        if self._last_batch_large:
            await asyncio.sleep(LINGER_SECONDS)

    async def _something(self, until: datetime | None, now: datetime) -> None:
        if self._commands or self._messages:
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

    async def emptied(self) -> None:
        """Wait until nothing waits here and the writer comes for more."""
        self._emptied.clear()
        self._arrived.set()
        await self._emptied.wait()

    def take(self, limit: int) -> list[Message]:
        """Up to `limit` of what waits, oldest first in each lane.

        Messages may fill three fifths, since an order brings three for each command, and what has
        begun goes before what is new; the others one fifth each. What one leaves free another may use.
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
        """Wait for something that receipts can share a commit with, but not for long."""
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(RECEIPTS_LINGER_SECONDS):
                await self._arrived.wait()
