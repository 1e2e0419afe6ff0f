"""Test services as the project tests its own: in virtual time, on a broker in memory.

```python
def test_payment_is_booked() -> None:
    async def scenario() -> None:
        broker, topology = MemoryBroker(), Topology([my_service])
        async with running(make_process(my_service, broker, topology, database)) as process:
            account = await process.execute(OpenAccount(account_id="1"))

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
