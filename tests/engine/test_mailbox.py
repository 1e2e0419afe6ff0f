"""Three lanes, each with its share, so that none starves another."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bank import paid
from engine.virtual import START, run
from todoku.engine import MailboxFull
from todoku.engine.mailbox import (
    LARGE_BATCH_MESSAGES,
    LINGER_SECONDS,
    RECEIPTS_LINGER_SECONDS,
    Mailbox,
)
from todoku.engine.messages import IncomingEvent, PendingCommand, Receipt

HEARD: Final = paid(1)


def mailbox(commands: int = 0, messages: int = 0, receipts: int = 0) -> Mailbox:
    """A mailbox with so much in each lane."""
    box = Mailbox(commands_max=1_000, receipts_max=1_000)
    for n in range(commands):
        box.put_command(asked(n))
    for n in range(messages):
        box.put_messages([paid(n)])
    for n in range(receipts):
        box.put_receipt(Receipt("reader", (str(n),)))
    return box


def asked(command: Any = None) -> PendingCommand:
    return PendingCommand(command, lambda _: None)


def lanes(batch: list[Any]) -> tuple[int, int, int]:
    kinds = [type(message) for message in batch]
    return kinds.count(PendingCommand), kinds.count(IncomingEvent), kinds.count(Receipt)


class TestShares:
    @pytest.mark.parametrize(
        ("waiting", "limit", "expected"),
        [
            ((100, 100, 100), 30, (6, 18, 6)),
            ((100, 100, 100), 31, (6, 19, 6)),
            ((100, 0, 0), 30, (30, 0, 0)),
            ((0, 100, 0), 30, (0, 30, 0)),
            ((0, 0, 100), 30, (0, 0, 30)),
            ((100, 2, 100), 30, (22, 2, 6)),
            ((1, 2, 3), 30, (1, 2, 3)),
            ((0, 0, 0), 30, (0, 0, 0)),
        ],
    )
    def test_lanes_share_a_batch_and_use_free_shares_of_others(
        self, waiting: tuple[int, int, int], limit: int, expected: tuple[int, int, int]
    ) -> None:
        assert lanes(mailbox(*waiting).take(limit)) == expected

    @given(waiting=st.tuples(*[st.integers(0, 40)] * 3), limit=st.integers(5, 60))
    def test_batch_is_full_and_no_lane_starves(
        self, waiting: tuple[int, int, int], limit: int
    ) -> None:
        box = mailbox(*waiting)
        taken = lanes(box.take(limit))
        assert sum(taken) == min(limit, sum(waiting))
        assert len(box) == sum(waiting) - sum(taken)
        for there, here, fifths in zip(waiting, taken, (1, 3, 1), strict=True):
            assert min(there, limit * fifths // 5) <= here <= there

    @given(waiting=st.tuples(*[st.integers(0, 20)] * 3), limit=st.integers(1, 12))
    def test_every_message_is_taken_in_the_order_of_its_lane(
        self, waiting: tuple[int, int, int], limit: int
    ) -> None:
        box = mailbox(*waiting)
        taken: list[Any] = []
        while batch := box.take(limit):
            taken += batch
        assert [m.command for m in taken if isinstance(m, PendingCommand)] == list(
            range(waiting[0])
        )
        assert [m.event for m in taken if isinstance(m, IncomingEvent)] == [
            paid(n).event for n in range(waiting[1])
        ]
        assert [m.ids for m in taken if isinstance(m, Receipt)] == [
            (str(n),) for n in range(waiting[2])
        ]


class TestLimits:
    def test_commands_beyond_the_limit_raise_mailbox_full(self) -> None:
        box = Mailbox(commands_max=2, receipts_max=1)
        box.put_command(asked())
        box.put_command(asked())
        with pytest.raises(MailboxFull, match="try again later"):
            box.put_command(asked())
        assert len(box) == 2
        box.take(1)
        box.put_command(asked())

    def test_effect_results_are_never_rejected(self) -> None:
        box = Mailbox(commands_max=1, receipts_max=1)
        box.put_command(asked())
        box.put_effect_result(asked())
        assert len(box) == 2

    def test_receipts_beyond_the_limit_are_dropped(self) -> None:
        """A lost receipt costs one repeat."""
        box = Mailbox(commands_max=1, receipts_max=2)
        for n in range(3):
            box.put_receipt(Receipt("reader", (str(n),)))
        assert [receipt.ids for receipt in box.take(9)] == [("0",), ("1",)]  # type: ignore[union-attr]

    def test_messages_are_not_limited_by_the_mailbox(self) -> None:
        box = Mailbox(commands_max=1, receipts_max=1)
        box.put_messages([HEARD] * 5)
        assert len(box) == 5


class TestWaiting:
    """How long a writer waits, in virtual time."""

    @staticmethod
    def waited(
        box: Mailbox, until: datetime | None, wake: Any = None, *, after: float = 3
    ) -> float:
        async def main() -> float:
            loop = asyncio.get_running_loop()
            if wake is not None:
                loop.call_later(after, wake)
            await box.wait_for_work(until, START)
            return loop.time()

        return run(main())

    def test_writer_does_not_wait_for_more_messages(self) -> None:
        assert self.waited(mailbox(messages=1), None) == 0
        assert self.waited(mailbox(commands=1, receipts=1), None) == 0

    def test_receipts_linger_to_share_a_commit(self) -> None:
        assert self.waited(mailbox(receipts=2), None) == RECEIPTS_LINGER_SECONDS

    def test_receipts_share_the_commit_of_the_next_message(self) -> None:
        box = mailbox(receipts=2)
        early = RECEIPTS_LINGER_SECONDS / 2
        assert self.waited(box, None, lambda: box.put_messages([HEARD]), after=early) == early

    @pytest.mark.parametrize(
        "arrive",
        [
            lambda box: box.put_command(asked()),
            lambda box: box.put_effect_result(asked()),
            lambda box: box.put_messages([HEARD]),
            lambda box: box.wake(),
        ],
        ids=["command", "answer", "message", "wake-up"],
    )
    def test_every_arrival_wakes_the_writer(self, arrive: Any) -> None:
        box = mailbox()
        assert self.waited(box, None, lambda: arrive(box)) == 3

    def test_linger_time_starts_with_the_first_receipt(self) -> None:
        box = mailbox()
        receipt = Receipt("reader", ())
        waited = self.waited(
            box, None, lambda: (box.put_receipt(receipt), box.put_receipt(receipt))
        )
        assert waited == 3 + RECEIPTS_LINGER_SECONDS

    def test_writer_wakes_when_a_row_is_due(self) -> None:
        assert self.waited(mailbox(), START + timedelta(seconds=2)) == 2

    def test_overdue_row_is_not_waited_for(self) -> None:
        assert self.waited(mailbox(), datetime(2020, 1, 1, tzinfo=UTC)) == 0

    def test_after_a_large_batch_the_writer_lingers(self) -> None:
        box = mailbox(messages=LARGE_BATCH_MESSAGES + 2)
        box.take(LARGE_BATCH_MESSAGES)
        assert self.waited(box, None) == LINGER_SECONDS
        box.take(1)
        assert self.waited(box, None) == 0

    def test_wait_until_empty_waits_for_the_batch_in_progress(self) -> None:
        async def main() -> list[str]:
            box, story = mailbox(messages=2), []

            async def write() -> None:
                while True:
                    await box.wait_for_work(None, START)
                    batch = box.take(1)
                    await asyncio.sleep(1)
                    if batch:
                        story.append("committed")

            writer = asyncio.create_task(write())
            await asyncio.sleep(0.5)
            await box.wait_until_empty()
            story.append("emptied")
            writer.cancel()
            return story

        assert run(main()) == ["committed", "committed", "emptied"]
