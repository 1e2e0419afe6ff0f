"""A process that starts while others go on does not take the stream, or its database, for an older one."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from todoku.broker.partitions import Partition
from todoku.broker.port import Progress
from todoku.engine.recovery import Recovery

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class GrowingStream:
    """A stream that has so many messages each time that it is asked; the last number stays."""

    def __init__(self, *lengths: int) -> None:
        self.epochs_ended: list[str] = []
        self._lengths = list(lengths)

    async def progress(self, readers: Sequence[str]) -> Progress:
        last = self._lengths.pop(0) if len(self._lengths) > 1 else self._lengths[0]
        return Progress(
            stream_epoch="e",
            first_sequence=1,
            last_sequence=last,
            consumed=dict.fromkeys(readers, 0),
        )

    async def begin_epoch(self, ended: str) -> None:
        self.epochs_ended.append(ended)

    async def first_after(self, *_: object) -> None:
        return None


class OthersHaveHandled(Recovery):
    """Looks into a database in which other processes have handled so many messages."""

    def __init__(self, broker: GrowingStream, reached: int) -> None:
        self._broker: Any = broker
        self._service: Any = SimpleNamespace(name="orders", event_handlers=())
        self._whole = Partition("orders")
        self._partitions = []
        self._reach = reached

    async def _run(self, look: Callable[..., Any], *arguments: object) -> Any:  # type: ignore[override]
        return look(*arguments)

    def _reached(self, _: Progress) -> dict[str, int]:
        return {"orders": self._reach}

    def _is_marked_incomplete(self) -> bool:
        return False

    def _is_new(self) -> bool:
        return False


async def test_messages_that_others_handle_meanwhile_are_no_roll_back() -> None:
    stream = GrowingStream(10, 12)
    assert not await OthersHaveHandled(stream, reached=11).needed()
    assert stream.epochs_ended == []


async def test_stream_that_remains_shorter_was_rolled_back() -> None:
    stream = GrowingStream(10)
    await OthersHaveHandled(stream, reached=11).needed()
    assert stream.epochs_ended == ["e"]
