"""The client: places orders, in a process of its own so that what it costs is told apart.

    python -m todoku.lab.bench.load < PLAN

It reads a `Plan` as JSON from its standard input, writes `Progress` on its standard output, a line
each, and in the end a `Load` as MessagePack into the file that the plan names.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from array import array
from collections import Counter, deque
from itertools import cycle
from pathlib import Path

import msgspec

from todoku.lab.bench.connection import Answer, Connection, request

PROGRESS_SECONDS = 0.2
PAUSE_SECONDS = 0.1
"""How long a connection rests after its order was refused, and after it was lost."""

LAST_ANSWER_SECONDS_MAX = 40.0
"""How long to wait for the last answers: longer than a service takes to say that it has none."""

GONE_SECONDS_MAX = 10.0
"""How long nothing listens until the system is taken for gone."""

ID_LENGTH = 36
ID_MARK = b'"id":"'

WATCH_EVERY_SECONDS = 0.1
LOOK_SECONDS_MIN = 0.002
LOOK_GROWTH = 0.2
"""An order that is watched is looked at every 2 ms at first, later after another fifth of its age:
the later it ends the less does it matter when exactly, and looking costs the server too."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What load to make.

    `bodies` are placed in turn over `connections`. Without a `rate` each connection places its next
    order when the last is answered (closed loop); with one, orders are due at that many a second,
    whatever the answers do (open loop). It ends after `seconds` or `orders`, whichever comes first.
    `terminal` are the statuses of orders that have ended.
    """

    host: str
    port: int
    connections: int
    rate: float | None
    seconds: float | None
    orders: int | None
    bodies: tuple[str, ...]
    terminal: tuple[str, ...]
    result: str


class Progress(msgspec.Struct, frozen=True):
    """How far the load is, `seconds` after its start."""

    seconds: float
    accepted: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the client did and saw.

    `started_at` is the time of the first order in seconds since 1970, all others are in seconds
    after it: when an accepted order was sent (in open loop: when it was due, so that waiting for a
    connection counts), and how long its answer took. `watched` are the orders that were asked for
    again and again until they had ended: when sent, and how long that took. `refused` counts the
    other answers by status; 0 is none. `cpu_seconds` is what the load has cost, `process_seconds` what
    the whole process has, since its birth.
    """

    started_at: float
    sent: list[float]
    answered: list[float]
    ids: list[str]
    watched: list[tuple[float, float]]
    refused: dict[int, int]
    cpu_seconds: float
    process_seconds: float
    memory_bytes_max: int


class Client:
    """Places the orders of a plan. `run` does it, the rest is called by the event loop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._place = place = f"{plan.host}:{plan.port}"
        self._requests = cycle(
            [request("POST", place, "/orders", body.encode()) for body in plan.bodies]
        )
        self._begun = 0.0
        self._asked = 0
        self._connections: set[Connection] = set()
        self._under_way: dict[Connection, float] = {}
        self._idle: deque[Connection] = deque()
        self._overdue: deque[float] = deque()
        self._over = asyncio.Event()
        self._ended = False
        self._lost_at = 0.0
        self._sent = array("d")
        self._answered = array("d")
        self._ids: list[bytes] = []
        self._refused: Counter[int] = Counter()
        self._watcher: asyncio.Future[tuple[float, bytes]] | None = None
        self._watched: list[tuple[float, float]] = []

    async def run(self) -> Load:
        """Place the orders, and return when the last is answered."""
        free = await self._connect_all()
        watching = asyncio.create_task(self._watch())
        telling = asyncio.create_task(self._tell())
        started_at, cpu_before = time.time(), time.process_time()
        self._begun = time.perf_counter()
        for connection in free:
            self._free(connection)
        if self._plan.rate:
            self._fall_due()
        await self._until_over()
        cpu_seconds = time.process_time() - cpu_before
        watching.cancel()
        telling.cancel()
        await asyncio.wait([watching, telling])
        for connection in self._connections:
            connection.close()
        return Load(
            started_at=started_at,
            sent=list(self._sent),
            answered=list(self._answered),
            ids=[order_id.decode() for order_id in self._ids],
            watched=self._watched,
            refused=dict(self._refused),
            cpu_seconds=cpu_seconds,
            process_seconds=time.process_time(),
            memory_bytes_max=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )

    async def _connect_all(self) -> list[Connection]:
        """All connections of the plan. Ends the program with a word if they cannot be had."""
        try:
            return [await self._connect() for _ in range(self._plan.connections)]
        except OSError as error:
            sys.exit(
                f"{len(self._connections)} of {self._plan.connections} connections could be made, "
                f"and no more: {error.strerror or error}"
            )

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self._on_answer, self._on_loss), self._plan.host, self._plan.port
        )
        self._connections.add(connection)
        return connection

    async def _until_over(self) -> None:
        seconds = self._plan.seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds and seconds + LAST_ANSWER_SECONDS_MAX):
                await self._over.wait()
        self._ended = True
        self._refused.update(0 for _ in self._under_way)

    def _now(self) -> float:
        return time.perf_counter() - self._begun

    def _free(self, connection: Connection) -> None:
        """A connection has nothing under way: give it an order, if one is due."""
        if self._overdue:
            self._send(connection, self._overdue.popleft())
        elif self._plan.rate is None and self._goes_on(self._now()):
            self._asked += 1
            self._send(connection, self._now())
        else:
            self._idle.append(connection)
            self._look_whether_over()

    def _fall_due(self) -> None:
        """Open loop: let the orders that are due by now go, and come back for the next."""
        rate = self._plan.rate
        assert rate
        while (due := self._asked / rate) <= self._now() and self._goes_on(due):
            self._asked += 1
            self._overdue.append(due)
            if self._idle:
                self._free(self._idle.popleft())
        if self._goes_on(due):
            asyncio.get_running_loop().call_later(due - self._now(), self._fall_due)
        else:
            self._look_whether_over()

    def _goes_on(self, due: float) -> bool:
        """Whether an order that is due then is part of the plan."""
        plan = self._plan
        within_count = plan.orders is None or self._asked < plan.orders
        return within_count and (plan.seconds is None or due < plan.seconds)

    def _look_whether_over(self) -> None:
        due = self._asked / self._plan.rate if self._plan.rate else self._now()
        if not self._under_way and not self._overdue and not self._goes_on(due):
            self._over.set()

    def _send(self, connection: Connection, due: float) -> None:
        self._under_way[connection] = due
        connection.send(next(self._requests))

    def _on_answer(self, connection: Connection, answer: Answer) -> None:
        due = self._under_way.pop(connection)
        if answer.status == 201:
            self._accept(due, answer.body)
            self._free(connection)
        else:
            self._refused[answer.status] += 1
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._free, connection)

    def _accept(self, due: float, body: bytes) -> None:
        order_id = id_of(body)
        self._sent.append(due)
        self._answered.append(self._now() - due)
        self._ids.append(order_id)
        if self._watcher is not None and not self._watcher.done():
            self._watcher.set_result((due, order_id))

    def _on_loss(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._under_way.pop(connection, None) is not None:
            self._refused[0] += 1
        elif connection in self._idle:
            self._idle.remove(connection)
        self._lost_at = time.perf_counter()
        if not self._ended:
            asyncio.create_task(self._replace())  # noqa: RUF006 - kept by the connection it makes

    async def _replace(self) -> None:
        while not self._ended:
            await asyncio.sleep(PAUSE_SECONDS)
            with contextlib.suppress(OSError):
                self._free(await self._connect())
                return
            self._look_whether_over()
            lost_seconds = time.perf_counter() - self._lost_at
            if not self._connections and lost_seconds > GONE_SECONDS_MAX:
                self._over.set()

    async def _watch(self) -> None:
        """Follow one order after the other to its end, as a client that asks would see it."""
        with contextlib.closing(Asking(self._plan.host, self._plan.port)) as asking:
            while True:
                self._watcher = asyncio.get_running_loop().create_future()
                due, order_id = await self._watcher
                with contextlib.suppress(OSError):
                    await self._follow(asking, due, order_id)
                await asyncio.sleep(WATCH_EVERY_SECONDS)

    async def _follow(self, asking: "Asking", due: float, order_id: bytes) -> None:
        look = request("GET", self._place, f"/orders/{order_id.decode()}")
        accepted = self._now()
        while (await asking.ask(look)) not in self._plan.terminal:
            age = self._now() - accepted
            await asyncio.sleep(max(LOOK_SECONDS_MIN, LOOK_GROWTH * age))
        self._watched.append((due, self._now() - due))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            line = msgspec.json.encode(Progress(self._now(), len(self._ids))) + b"\n"
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            except OSError:
                os._exit(1)  # Whoever wanted this load is no more.


class Asking:
    """Asks for the status of orders over a connection of its own, made anew when it is lost."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._connection: Connection | None = None
        self._answer: asyncio.Future[Answer]

    async def ask(self, look: bytes) -> str:
        """The status of an order, by a request that was made before; empty if it is not known.

        Raises `OSError` when the server cannot be reached.
        """
        loop = asyncio.get_running_loop()
        if self._connection is None:
            _, self._connection = await loop.create_connection(
                lambda: Connection(self._on_answer, self._on_loss), self._host, self._port
            )
        self._answer = loop.create_future()
        self._connection.send(look)
        answer = await self._answer
        return str(msgspec.json.decode(answer.body, type=Seen).status)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()

    def _on_answer(self, _: Connection, answer: Answer) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def _on_loss(self, _: Connection) -> None:
        self._connection = None
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was lost"))


class Seen(msgspec.Struct, frozen=True):
    """An order that was asked for; a problem has a number in its place."""

    status: str | int


def id_of(order: bytes) -> bytes:
    """The id of an order in JSON, without reading the rest."""
    place = order.index(ID_MARK) + len(ID_MARK)
    return order[place : place + ID_LENGTH]


def main() -> None:
    """Run the plan on standard input."""
    import uvloop

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)

    async def run() -> Load:
        return await Client(plan).run()

    Path(plan.result).write_bytes(msgspec.msgpack.encode(uvloop.run(run())))


if __name__ == "__main__":
    main()
