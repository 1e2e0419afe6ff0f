"""Generates load: places orders, in a process of its own so that its cost is measured separately.

    python -m todoku.lab.bench.load < PLAN

Reads a `LoadPlan` as JSON from standard input, writes `Progress` as JSON lines to standard output,
and finally a `LoadResult` as MessagePack to the file that the plan names.
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

from todoku.lab.http import AsyncHttpClient, HttpConnection, Response, encode_request

PROGRESS_SECONDS = 0.2
PAUSE_SECONDS = 0.1
"""The pause of a connection after its order was refused, and after it was lost."""

LAST_ANSWER_SECONDS_MAX = 40.0
"""How long to wait for the last responses: longer than the request timeout of a service."""

GONE_SECONDS_MAX = 10.0
"""How long to retry connecting before the system counts as gone."""

ID_LENGTH = 36
ID_MARK = b'"id":"'

WATCH_EVERY_SECONDS = 0.1
LOOK_SECONDS_MIN = 0.002
LOOK_GROWTH = 0.2
"""A watched order is polled every 2 ms at first, later after another fifth of its age: the later it
ends the less its exact end matters, and polling costs the server too."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The load to generate.

    `bodies` are sent in turn over `connections`. Without a `rate` each connection places its next
    order when the last is answered (closed loop); with one, that many orders are due each second,
    independent of responses (open loop). It ends after `seconds` or `orders`, whichever comes first.
    `terminal` are the final statuses of an order; `credential` is sent with each request. `more_ports` are
    those of other processes of orders, which the connections take in turn.
    """

    host: str
    port: int
    connections: int
    rate: float | None
    seconds: float | None
    orders: int | None
    bodies: tuple[str, ...]
    terminal: tuple[str, ...]
    credential: str | None = None
    more_ports: tuple[int, ...] = ()
    result: str


class Progress(msgspec.Struct, frozen=True):
    """How many orders were accepted, `seconds` after the start."""

    seconds: float
    accepted: int


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator measured.

    `started_at` is the time of the first order in seconds since 1970, all other times are in seconds
    after it: when an accepted order was sent (in open loop: when it was due, so that waiting for a
    connection counts), and how long its response took. `watched` are the orders that were polled
    until they ended: when sent, and how long that took. `refused` counts the other responses by
    status; 0 means no response. `cpu_seconds` is the CPU time of the load, `process_seconds` that of
    the whole process since its start.
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


class LoadGenerator:
    """Places the orders of a plan: `run` starts it, the other methods are callbacks."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._host = host = f"{plan.host}:{plan.port}"
        self._requests = cycle(
            [
                encode_request("POST", host, "/orders", body.encode(), credential=plan.credential)
                for body in plan.bodies
            ]
        )
        self._ports = cycle((plan.port, *plan.more_ports))
        self._begun = 0.0
        self._asked = 0
        self._connections: set[HttpConnection] = set()
        self._in_flight: dict[HttpConnection, float] = {}
        self._idle: deque[HttpConnection] = deque()
        self._overdue: deque[float] = deque()
        self._done = asyncio.Event()
        self._ended = False
        self._lost_at = 0.0
        self._sent = array("d")
        self._answered = array("d")
        self._ids: list[bytes] = []
        self._refused: Counter[int] = Counter()
        self._watcher: asyncio.Future[tuple[float, bytes]] | None = None
        self._watched: list[tuple[float, float]] = []

    async def run(self) -> LoadResult:
        """Place the orders, and return the result when the last is answered."""
        free = await self._connect_all()
        watching = asyncio.create_task(self._watch())
        reporting = asyncio.create_task(self._report_progress())
        started_at, cpu_before = time.time(), time.process_time()
        self._begun = time.perf_counter()
        for connection in free:
            self._free(connection)
        if self._plan.rate:
            self._send_due()
        await self._until_done()
        cpu_seconds = time.process_time() - cpu_before
        watching.cancel()
        reporting.cancel()
        await asyncio.wait([watching, reporting])
        for connection in self._connections:
            connection.close()
        return LoadResult(
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

    async def _connect_all(self) -> list[HttpConnection]:
        """Open all connections of the plan; exit with a message if one cannot be opened."""
        try:
            return [await self._connect() for _ in range(self._plan.connections)]
        except OSError as error:
            sys.exit(
                f"only {len(self._connections)} of {self._plan.connections} connections could be opened: "
                f"{error.strerror or error}"
            )

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: HttpConnection(self._on_response, self._on_loss),
            self._plan.host,
            next(self._ports),
        )
        self._connections.add(connection)
        return connection

    async def _until_done(self) -> None:
        seconds = self._plan.seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds and seconds + LAST_ANSWER_SECONDS_MAX):
                await self._done.wait()
        self._ended = True
        self._refused.update(0 for _ in self._in_flight)

    def _now(self) -> float:
        return time.perf_counter() - self._begun

    def _free(self, connection: HttpConnection) -> None:
        """Give an idle connection an order, if one is due."""
        if self._overdue:
            self._send(connection, self._overdue.popleft())
        elif self._plan.rate is None and self._in_plan(self._now()):
            self._asked += 1
            self._send(connection, self._now())
        else:
            self._idle.append(connection)
            self._end_if_done()

    def _send_due(self) -> None:
        """Open loop: send the orders that are due, and schedule the next."""
        rate = self._plan.rate
        assert rate
        while (due := self._asked / rate) <= self._now() and self._in_plan(due):
            self._asked += 1
            self._overdue.append(due)
            if self._idle:
                self._free(self._idle.popleft())
        if self._in_plan(due):
            asyncio.get_running_loop().call_later(due - self._now(), self._send_due)
        else:
            self._end_if_done()

    def _in_plan(self, due: float) -> bool:
        """Return whether an order due at this time is part of the plan."""
        plan = self._plan
        within_count = plan.orders is None or self._asked < plan.orders
        return within_count and (plan.seconds is None or due < plan.seconds)

    def _end_if_done(self) -> None:
        due = self._asked / self._plan.rate if self._plan.rate else self._now()
        if not self._in_flight and not self._overdue and not self._in_plan(due):
            self._done.set()

    def _send(self, connection: HttpConnection, due: float) -> None:
        self._in_flight[connection] = due
        connection.send(next(self._requests))

    def _on_response(self, connection: HttpConnection, response: Response) -> None:
        due = self._in_flight.pop(connection)
        if response.status == 201:
            self._accept(due, response.body)
            self._free(connection)
        else:
            self._refused[response.status] += 1
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._free, connection)

    def _accept(self, due: float, body: bytes) -> None:
        order_id = id_of(body)
        self._sent.append(due)
        self._answered.append(self._now() - due)
        self._ids.append(order_id)
        if self._watcher is not None and not self._watcher.done():
            self._watcher.set_result((due, order_id))

    def _on_loss(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if self._in_flight.pop(connection, None) is not None:
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
            self._end_if_done()
            lost_seconds = time.perf_counter() - self._lost_at
            if not self._connections and lost_seconds > GONE_SECONDS_MAX:
                self._done.set()

    async def _watch(self) -> None:
        """Poll one order after the other until it has ended, as a client would."""
        with contextlib.closing(AsyncHttpClient(self._plan.host, self._plan.port)) as client:
            while True:
                self._watcher = asyncio.get_running_loop().create_future()
                due, order_id = await self._watcher
                with contextlib.suppress(OSError):
                    await self._follow(client, due, order_id)
                await asyncio.sleep(WATCH_EVERY_SECONDS)

    async def _follow(self, client: AsyncHttpClient, due: float, order_id: bytes) -> None:
        request = encode_request(
            "GET",
            self._host,
            f"/orders/{order_id.decode()}",
            credential=self._plan.credential,
        )
        accepted = self._now()
        while status_of((await client.send(request)).body) not in self._plan.terminal:
            age = self._now() - accepted
            await asyncio.sleep(max(LOOK_SECONDS_MIN, LOOK_GROWTH * age))
        self._watched.append((due, self._now() - due))

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            line = msgspec.json.encode(Progress(self._now(), len(self._ids))) + b"\n"
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            except OSError:
                os._exit(1)  # The process that wants the result has ended.


class _Order(msgspec.Struct, frozen=True):
    status: str | int  # a number in a problem


def status_of(order: bytes) -> str:
    """Return the status of an order in JSON."""
    return str(msgspec.json.decode(order, type=_Order).status)


def id_of(order: bytes) -> bytes:
    """Return the id of an order in JSON, without decoding the rest."""
    place = order.index(ID_MARK) + len(ID_MARK)
    return order[place : place + ID_LENGTH]


def main() -> None:
    """Run the plan on standard input."""
    import uvloop

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadPlan)

    async def run() -> LoadResult:
        return await LoadGenerator(plan).run()

    Path(plan.result).write_bytes(msgspec.msgpack.encode(uvloop.run(run())))


if __name__ == "__main__":
    main()
