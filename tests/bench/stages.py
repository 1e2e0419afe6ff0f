"""Profiles the CPU time of a service by stage.

The functions that the stages name are wrapped while a service runs, and the CPU clock of the thread
is read whenever one is entered or left. Time counts for the innermost stage; outside of all of them
it is the rest: event loop, sockets, hand-over between threads. Reading the clock makes a service
some percent slower, evenly.
"""

import atexit
import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import msgspec

from todoku.lab.bench.report import BenchReport
from todoku.system import system

FOLDER_VARIABLE = "TODOKU_PROFILE"
"""The variable with the folder into which each service writes its times when it ends."""

STAGES = {
    "HTTP, protocol": (
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.data_received",
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle.send",
    ),
    "HTTP, framework": ("uvicorn.protocols.http.httptools_impl:RequestResponseCycle.run_asgi",),
    "HTTP, reading the order": (
        "todoku.web.operations:read_body",
        "todoku.web.operations:decode_body",
    ),
    "HTTP, the route": ("todoku.orders.http:OrderRoutes.place",),
    "HTTP, the reply": ("todoku.web.reply:Reply.__init__", "todoku.web.reply:Reply.__call__"),
    "asking the writer": ("todoku.engine.process:Process.execute",),
    "reading the stream": ("nats.aio.client:Client._read_loop",),
    "decoding events": ("todoku.engine.consumer:Consumer._read",),
    "handing over to the writer": ("todoku.engine.process:Process.write_step",),
    "writer": ("todoku.engine.writer:Writer.step",),
    "inbox": ("todoku.engine.tables:Inbox.send", "todoku.engine.tables:Inbox.add"),
    "loading": (
        "todoku.orders.store:OrdersStore.load",
        "todoku.inventory.store:InventoryStore.load",
        "todoku.shipping.store:ShippingStore.load",
    ),
    "deciding": ("todoku.engine.batch_context:BatchContext.handle_all",),
    "saving": (
        "todoku.orders.store:OrdersStore.save",
        "todoku.inventory.store:InventoryStore.save",
        "todoku.shipping.store:ShippingStore.save",
    ),
    "what is due": (
        "todoku.engine.due_rows:DueRows.find",
        "todoku.engine.due_rows:DueRows.next_due",
    ),
    "encoding events": ("todoku.engine.writer:encode",),
    "outbox": ("todoku.engine.tables:Outbox.add",),
    "receipts, settling": ("todoku.engine.tables:Outbox.mark_delivered",),
    "stream position": ("todoku.engine.stream_positions:StreamPositions.advance",),
    "begin and commit": (
        "todoku.database.database:Database._connect",
        "sqlalchemy.engine.default:DefaultDialect.do_commit",
    ),
    "publishing": ("todoku.engine.relay:Relay.step",),
    "acknowledging": ("todoku.broker.nats_consumer:NatsConsumer.ack",),
    "receipts, sending": ("todoku.broker.nats:NatsBroker.notify",),
    "receipts, reading": ("todoku.engine.process:Process._on_receipt",),
    "writing to the broker": ("nats.aio.client:Client._flusher",),
    "carrier": ("todoku.engine.effects:Effects._call",),
}
"""The stages in the order in which an order passes them, each with its functions."""

SQL = (
    "todoku.database.prepared:execute_on_driver",
    "sqlalchemy.engine.default:DefaultDialect.do_execute",
    "sqlalchemy.engine.default:DefaultDialect.do_executemany",
)
"""The database: a part of the stage that calls it, marked by `IN_SQL`."""

IN_SQL = ", in the database"
COLLECTION = "garbage collection"
REST = "the rest"

NAMES = (*(name for stage in STAGES for name in (stage, stage + IN_SQL)), COLLECTION)
SITE = f"""import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from bench.stages import install
del sys.path[0]
install()
"""


class Clock(threading.local):
    """The times of one thread: `spent[stage]` in nanoseconds."""

    clocks: ClassVar[list[Counter[str]]] = []
    """The times of all threads."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.clocks.append(self.spent)
        self._inside = [REST]
        self._since = time.thread_time_ns()

    @property
    def stage(self) -> str:
        """The stage that the thread is in."""
        return self._inside[-1]

    def enter(self, stage: str) -> None:
        """Count time for this stage until `leave`."""
        now = time.thread_time_ns()
        self.spent[self._inside[-1]] += now - self._since
        self._since = now
        self._inside.append(stage)

    def leave(self) -> None:
        """Count time for the stage before again."""
        now = time.thread_time_ns()
        self.spent[self._inside.pop()] += now - self._since
        self._since = now


_clock = Clock()


class _Timed:
    """An awaitable whose steps count for a stage; waiting counts for none."""

    def __init__(self, stage: str, coroutine: Any) -> None:
        self._stage = stage
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        send, argument = self._coroutine.send, None
        while True:
            _clock.enter(self._stage)
            try:
                awaited = send(argument)
            except StopIteration as done:
                return done.value
            finally:
                _clock.leave()
            try:
                send, argument = self._coroutine.send, (yield awaited)
            except BaseException as error:
                send, argument = self._coroutine.throw, error


def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that its time counts for the stage."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            return await _Timed(stage, function(*args, **kwargs))
    else:

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            _clock.enter(_clock.stage + stage if stage is IN_SQL else stage)
            try:
                return function(*args, **kwargs)
            finally:
                _clock.leave()

    return run


def install() -> None:
    """Wrap the functions of the stages, in a service that is profiled; elsewhere do nothing."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or "run" not in sys.orig_argv:
        return
    for stage, names in {**STAGES, IN_SQL: SQL}.items():
        for name in names:
            _wrap(stage, name)
    gc.callbacks.append(_collecting)
    signal.signal(signal.SIGUSR2, _reset)
    atexit.register(_write, Path(folder, sys.orig_argv[-1]))


def _wrap(stage: str, name: str) -> None:
    owner, _, attribute = name.replace(":", ".").rpartition(".")
    holder = resolve_name(owner)
    setattr(holder, attribute, timed(stage, getattr(holder, attribute)))


def _collecting(phase: str, _: dict[str, int]) -> None:
    if phase == "start":
        _clock.enter(COLLECTION)
    else:
        _clock.leave()


def _reset(*_: object) -> None:
    for spent in _clock.clocks:
        spent.clear()


def _write(file: Path) -> None:
    total: Counter[str] = sum(_clock.clocks, Counter())
    file.write_bytes(msgspec.json.encode({name: ns / 1e9 for name, ns in total.items()}))


def environment(folder: Path) -> dict[str, str]:
    """Return variables that make each service profile itself and write its times into `folder`.

    Python imports a module named `sitecustomize` at its start, if there is one.
    """
    (folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {FOLDER_VARIABLE: str(folder), "PYTHONPATH": path}


def begin(pids: Mapping[str, int]) -> None:
    """Reset the times of the services when the load begins."""
    for service in system.names:
        os.kill(pids[service], signal.SIGUSR2)


def an_order(folder: Path, report: BenchReport) -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds an order of each stage in each service, once they have ended.

    With the rest they add up to the service's cost in the report.
    """
    found: dict[str, dict[str, float]] = {}
    for service in system.names:
        seconds = msgspec.json.decode((folder / service).read_bytes(), type=dict[str, float])
        stages = {
            name: 1_000 * seconds[name] / report.accepted for name in NAMES if name in seconds
        }
        found[service] = {**stages, REST: report.costs[service].cpu_ms - sum(stages.values())}
    return found
