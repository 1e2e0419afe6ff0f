"""The relay: what was committed reaches the stream, in order, and again when there is reason to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import case, insert, update

from engine.bank import NOW, OWNER, Booked, account_id, bank_database, metadata, store
from engine.statements import listening
from engine.virtual import inline, run, until
from todoku.broker import Delivery, Outgoing, Stored, Subscription
from todoku.broker.memory import MemoryBroker, MemorySession
from todoku.database import DatabaseUnavailable
from todoku.engine.relay import Relay
from todoku.engine.tables import OutboxRow
from todoku.events import fact_id

READERS = ("ledger", "statistics")


class Reader:
    """A service that reads what the bank says, and settles it unless it is told to wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incoming: list[bytes] = []
        self.receipts: Callable[[str, list[bytes]], None] | None = None
        self._subscription: Subscription

    async def start(self, broker: MemoryBroker) -> None:
        self._session = broker.session(self.name)
        await self._session.start()
        self._subscription = await self._session.subscribe(self.name, ["bank.>"], self._hear)
        self._subscription.want(10**6)

    def stop(self) -> None:
        """Be away; what is unsettled comes again."""
        self._session.kill()

    def _hear(self, deliveries: Sequence[Delivery]) -> None:
        bodies = [delivery.body for delivery in deliveries]
        self.incoming += bodies
        self._subscription.ack(deliveries)
        if self.receipts is not None:
            self.receipts(self.name, bodies)


class Bank:
    """A process of the bank, reduced to its outbox and its relay."""

    def __init__(self, broker: MemoryBroker, **settings: Any) -> None:
        self.broker = broker
        self.session: MemorySession = broker.session("bank")
        self.database = bank_database()
        self.run_read: Callable[..., Any] = inline
        self.relay = Relay(
            self.session,
            self.database,
            store.tables.outbox,
            owner=OWNER,
            readers=READERS,
            run=lambda *call: self.run_read(*call),
            **settings,
        )
        self.position = 0
        self.published: list[int] = []

        self._publish, self.session.publish = self.session.publish, self._watched  # type: ignore[method-assign]

    async def _watched(self, messages: Sequence[Outgoing]) -> Stored:
        self.published.append(len(messages))
        return await self._publish(messages)

    def commit(self, count: int) -> list[OutboxRow]:
        """Say so much, as the writer does: it is in the outbox, and owed to each reader."""
        rows = [
            OutboxRow(position, Booked.subject, b"%d" % position)
            for position in range(self.position + 1, self.position + count + 1)
        ]
        self.position += count
        with self.database.transaction() as connection:
            connection.execute(
                insert(metadata.tables["outbox"]),
                [
                    {
                        "event_id": fact_id(account_id(row.position), "Booked"),
                        "reader": reader,
                        "owner": OWNER,
                        "position": row.position,
                        "subject": row.subject,
                        "body": row.body,
                        "said_at": NOW,
                    }
                    for row in rows
                    for reader in READERS
                ],
            )
        return rows

    def say(self, count: int) -> None:
        """Say so much and hand it to the relay."""
        self.relay.offer(self.commit(count))

    def receipted(self, reader: str, bodies: Sequence[bytes]) -> None:
        """Forget what a reader has receipted."""
        with self.database.transaction() as connection:
            store.tables.outbox.mark_delivered(
                connection, [(fact_id(account_id(int(body)), "Booked"), reader) for body in bodies]
            )

    def stream(self) -> list[int]:
        """What the stream holds."""
        return [int(message.body) for message in self.broker.messages.values()]


@asynccontextmanager
async def relaying(broker: MemoryBroker | None = None, **settings: Any) -> AsyncIterator[Bank]:
    """A bank whose relay is at work."""

    async def batch_context() -> None:
        while True:
            await bank.relay.step()

    bank = Bank(broker or MemoryBroker(), **settings)
    await bank.session.start()
    task = asyncio.create_task(batch_context())
    yield bank
    assert not task.done(), task.exception()
    task.cancel()
    bank.database.close()


class TestPublishing:
    def test_offered_rows_are_published_from_memory(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                bank.say(3)
                bank.say(2)
                with listening() as statements:
                    await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2, 3, 4, 5]
                assert statements == []
                assert bank.relay.events_sent == 5

        run(main())

    def test_published_batch_is_limited(self) -> None:
        async def main() -> None:
            async with relaying(batch_max=2) as bank:
                bank.say(5)
                assert bank.relay.unsent == 5
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2, 3, 4, 5]
                assert bank.published == [2, 2, 1]
                assert bank.relay.unsent == 0

        run(main())

    def test_rows_beyond_the_window_are_read_from_the_outbox_in_order(self) -> None:
        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker, window_max=4, batch_max=3) as bank:
                broker.stop()
                for count in (3, 2, 1, 4, 1):
                    bank.say(count)
                assert bank.relay.unsent == 11
                broker.start()
                with listening() as statements:
                    await until(lambda: bank.relay.idle)
                assert bank.stream() == list(range(1, 12))
                assert "FROM outbox" in " ".join(statements)
                bank.say(2)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == list(range(1, 14))

        run(main())

    def test_adopted_rows_are_read_from_the_outbox(self) -> None:
        async def main() -> None:
            async with relaying(batch_max=2) as bank:
                bank.commit(5)
                bank.relay.enqueue(5)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2, 3, 4, 5]

        run(main())

    def test_rows_of_an_unknown_commit_are_published_in_order(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                bank.say(1)
                bank.commit(2)
                bank.say(1)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2, 3, 4]

        run(main())

    def test_gap_in_the_positions_is_skipped(self) -> None:
        async def main() -> None:
            async with relaying(batch_max=2) as bank:
                bank.commit(2)
                bank.position += 3
                bank.commit(2)
                bank.relay.enqueue(bank.position)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2, 6, 7]

        run(main())


class TestFailures:
    def test_rejected_batch_is_published_later_and_nothing_is_lost(self) -> None:
        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker, batch_max=2) as bank:
                broker.hostility.refuse_publish = 0.7
                for _ in range(20):
                    bank.say(3)
                    await asyncio.sleep(0.05)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == list(range(1, 61))

        run(main())

    def test_batch_stored_without_an_answer_is_published_again(self) -> None:
        """The inbox on the other side drops the copies."""

        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker, batch_max=4) as bank:
                broker.hostility.lose_answer = 0.5
                bank.say(40)
                await until(lambda: bank.relay.idle)
                assert sorted(set(bank.stream())) == list(range(1, 41))
                firsts = list(dict.fromkeys(bank.stream()))
                assert firsts == sorted(firsts)

        run(main())

    def test_pauses_grow_while_the_broker_is_unavailable_and_reset_after_it(self) -> None:
        async def main() -> list[float]:
            loop, attempts = asyncio.get_running_loop(), []
            broker = MemoryBroker()
            async with relaying(broker) as bank:
                publish = bank.session.publish

                async def watched(messages: Any) -> Any:
                    attempts.append(loop.time())
                    return await publish(messages)

                bank.session.publish = watched  # type: ignore[method-assign]
                broker.stop()
                bank.say(1)
                await until(lambda: len(attempts) == 9)
                broker.start()
                await until(lambda: bank.relay.idle)
                first_outage = list(attempts)
                broker.stop()
                bank.say(1)
                await until(lambda: len(attempts) == len(first_outage) + 2)
                assert attempts[-1] - attempts[-2] == pytest.approx(0.05)
            return first_outage

        attempts = run(main())
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert pauses[:8] == pytest.approx([0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0])

    def test_unreadable_outbox_is_read_later(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                failures = iter([True, True, False])

                async def shaky(function: Any) -> Any:
                    if next(failures):
                        raise DatabaseUnavailable("locked")
                    return function()

                bank.run_read = shaky
                bank.commit(2)
                bank.relay.enqueue(2)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 2]

        run(main())


class TestEvidence:
    """Nothing is sent twice out of impatience, and everything that is lost is sent again."""

    def test_confirmed_events_are_never_resent(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                for name in READERS:
                    reader = Reader(name)
                    reader.receipts = bank.receipted
                    await reader.start(bank.broker)
                bank.say(5)
                await until(lambda: bank.relay.idle)
                for _ in range(5):
                    await asyncio.sleep(2)
                    await bank.relay.check_progress()
                assert bank.stream() == [1, 2, 3, 4, 5]
                assert bank.relay.events_repeated == 0

        run(main())

    def test_nothing_is_resent_while_a_subscriber_is_down(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                present, absent = Reader("ledger"), Reader("statistics")
                present.receipts = absent.receipts = bank.receipted
                await present.start(bank.broker)
                await absent.start(bank.broker)
                await asyncio.sleep(1)
                absent.stop()
                bank.say(3)
                for _ in range(900):
                    await asyncio.sleep(2)
                    await bank.relay.check_progress()
                assert bank.stream() == [1, 2, 3]
                await absent.start(bank.broker)
                await asyncio.sleep(60)
                assert absent.incoming == [b"1", b"2", b"3"]

        run(main())

    def test_event_passed_without_a_receipt_is_resent_at_the_next_check(self) -> None:
        """To give the receipt that is on its way the time to arrive."""

        async def main() -> None:
            async with relaying() as bank:
                forgetful, good = Reader("ledger"), Reader("statistics")
                good.receipts = bank.receipted
                for reader in (forgetful, good):
                    await reader.start(bank.broker)
                bank.say(3)
                await until(lambda: len(forgetful.incoming) == 3)
                bank.receipted("ledger", [b"2"])
                await bank.relay.check_progress()
                assert bank.stream() == [1, 2, 3]
                await bank.relay.check_progress()
                assert bank.stream() == [1, 2, 3, 1, 3]
                assert bank.relay.events_repeated == 2

                await until(lambda: len(forgetful.incoming) == 5)
                bank.receipted("ledger", [b"1", b"3"])
                for _ in range(5):
                    await bank.relay.check_progress()
                assert bank.stream() == [1, 2, 3, 1, 3]

        run(main())

    def test_unconfirmed_resend_is_resent(self) -> None:
        async def main() -> None:
            async with relaying() as bank:
                forgetful, good = Reader("ledger"), Reader("statistics")
                good.receipts = bank.receipted
                for reader in (forgetful, good):
                    await reader.start(bank.broker)
                bank.say(1)
                for _ in range(10):
                    await asyncio.sleep(2)
                    await bank.relay.check_progress()
                assert bank.stream() == [1] * 6

        run(main())

    @pytest.mark.parametrize("window_max", [1, 100])
    def test_new_stream_epoch_resends_all_pending_events(self, window_max: int) -> None:
        async def main() -> None:
            async with relaying(window_max=window_max, batch_max=2) as bank:
                bank.say(5)
                await until(lambda: bank.relay.idle)
                for name in READERS:
                    bank.receipted(name, [b"2", b"4"])
                bank.broker.wipe()
                await bank.relay.check_progress()
                bank.say(1)
                await until(lambda: bank.relay.idle)
                assert bank.stream() == [1, 3, 5, 6]
                await bank.relay.check_progress()
                assert bank.relay.idle

        run(main())

    def test_stream_wiped_while_publishing_is_noticed(self) -> None:
        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker, batch_max=3) as bank:
                bank.say(7)
                broker.hostility.lose_answer = 1.0
                await asyncio.sleep(1)
                broker.wipe()
                broker.hostility.lose_answer = 0.0
                await until(lambda: bank.relay.idle)
                await bank.relay.check_progress()
                await until(lambda: bank.relay.idle)
                assert sorted(set(bank.stream())) == list(range(1, 8))

        run(main())

    def test_check_of_an_unavailable_broker_keeps_the_evidence(self) -> None:
        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker) as bank:
                forgetful, other = Reader("ledger"), Reader("statistics")
                other.receipts = bank.receipted
                for reader in (forgetful, other):
                    await reader.start(broker)
                bank.say(1)
                await until(lambda: forgetful.incoming == [b"1"])
                await bank.relay.check_progress()
                broker.hostility.refuse_publish = 1.0
                with pytest.raises(Exception, match="refused"):
                    await bank.relay.check_progress()
                broker.hostility.refuse_publish = 0.0
                await bank.relay.check_progress()
                assert bank.stream() == [1, 1]

        run(main())

    def test_broker_is_not_asked_if_nothing_was_published(self) -> None:
        async def main() -> None:
            broker = MemoryBroker()
            async with relaying(broker) as bank:
                broker.stop()
                await bank.relay.check_progress()

        run(main())


def test_request_to_resend_reaches_the_events_of_all_owners() -> None:
    async def main() -> None:
        async with relaying(batch_max=3) as bank:
            bank.commit(7)
            outbox = metadata.tables["outbox"]
            of = case((outbox.c.position < 4, "another"), else_="one more")
            with bank.database.transaction() as connection:
                connection.execute(update(outbox).values(owner=of))
            bank.relay.resend_others()
            await until(lambda: sum(bank.published) == 7)
            assert bank.published == [3, 3, 1]
            bank.say(1)
            await until(lambda: sum(bank.published) == 8)

    run(main())
