"""Test services as the project tests its own: in virtual time, on a broker in memory.

```python
from todoku.engine import Topology
from todoku.engine.testing import MemoryBroker, make_process, memory_database, run, running
from todoku.engine.testing.bank import OpenAccount, bank


def test_account_is_opened() -> None:
    async def scenario() -> None:
        process = make_process(bank, MemoryBroker(), Topology([bank]), memory_database(bank))
        async with running(process):
            account = await process.execute(OpenAccount(account_id="1", balance=10))
        assert account.balance == 10

    run(scenario())
```

`todoku.engine.testing.bank` is a small service to read and to test with.
"""

from todoku.broker.memory import MemoryBroker
from todoku.engine.testing.harness import (
    RunningProcess,
    inline,
    make_process,
    memory_database,
    run,
    running,
    until,
)
from todoku.engine.testing.virtual_time import START, Stuck, VirtualClock, VirtualLoop

__all__ = [
    "START",
    "MemoryBroker",
    "RunningProcess",
    "Stuck",
    "VirtualClock",
    "VirtualLoop",
    "inline",
    "make_process",
    "memory_database",
    "run",
    "running",
    "until",
]
