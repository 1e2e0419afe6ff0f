"""Each order has one trace, which is whole: also when processes are killed at any point."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message

from system.test_process import PRODUCT, Town, order_id
from telemetry.receiver import attributes, decode, let_go, torn, traces
from todoku.engine import Process
from todoku.engine.failpoints import POINTS, Failpoint, no_failpoint
from todoku.engine.testing import inline, run, until
from todoku.events import fact_id
from todoku.orders.order_counts import DURATIONS, EXEMPLARS
from todoku.shipping.carriers import CALL_DURATIONS, CALL_EXEMPLARS
from todoku.system import system
from todoku.telemetry.http import TraceMiddleware
from todoku.telemetry.store import SpanStore
from todoku.telemetry.tracer import ServiceTracer
from todoku.web import Backend, application

SERVICES = ("inventory", "shipping", "orders")
CLIENT_SECONDS = 20.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Killed(BaseException):
    """A process reached the point at which it is killed."""


def dying(point: str, nth: int) -> Failpoint:
    """Return what kills a process when it reaches a point for the nth time."""
    passed = 0

    def die(reached: str) -> None:
        nonlocal passed
        if reached == point:
            passed += 1
            if passed == nth:
                raise Killed(point)

    return die


class TracedTown(Town):
    """A town whose processes are traced; `spans` are those that were exported."""

    def __init__(self, folder: Path, **tracing: Any) -> None:
        super().__init__()
        self._folder, self._tracing = folder, tracing
        self.sample: Callable[[str], bool] = lambda _: True
        self.apps: list[ASGIApp] = []
        self._tracers: dict[str, ServiceTracer] = {}
        self._exported = b""
        self._replaced: list[Any] = []

    async def start_traced(self, name: str, failpoint: Failpoint = no_failpoint) -> Process:
        store = SpanStore(self._folder, name)
        store.adopt()
        tracer = ServiceTracer(name, store, lambda trace: self.sample(trace), **self._tracing)
        process = await self.start(name, tracer=tracer, failpoint=failpoint)
        self._tracers[name] = tracer
        if name == "orders":
            backend = Backend(process=process, database=self.disks[name], run_read=inline)  # type: ignore[arg-type]
            traced = [Middleware(TraceMiddleware, tracer)]
            self.apps.append(
                application(system[name].build_api(backend), backend, outermost=traced)
            )
        return process

    async def start_all(self, failpoint: Callable[[], Failpoint] = lambda: no_failpoint) -> None:
        for name in SERVICES:
            await self.start_traced(name, failpoint())
            if name == "inventory":
                await self.running[-1].process.execute(PRODUCT)

    def kill(self, process: Process) -> None:
        """Kill a process: what its store has only in memory is lost."""
        super().kill(process)
        let_go(self._tracers[process.service.name].store)

    async def restart_killed(self) -> None:
        """Start each process anew that has died at its failpoint."""
        for running in [*self.running]:
            died = running._task.done() and isinstance(running._task.exception(), Killed)
            if died and running not in self._replaced:
                self._replaced.append(running)
                self.kill(running.process)
                await self.start_traced(running.process.service.name)

    async def post(self, path: str, body: bytes, **headers: str) -> int:
        """Send a request to orders; return the status of its response."""
        status = 0

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        sent = {"content-type": "application/json", "host": "localhost", **headers}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()
            ],
        }
        await self.apps[-1](scope, receive, send)
        return status

    async def place(self, n: int, **headers: str) -> None:
        """Place an order as a client does: again with the same key until there is an answer."""
        body = '{"userId":"user","items":[{"productId":"prod001","quantity":1,"price":5000}]}'
        key = order_id(n)
        while True:
            with suppress(TimeoutError, Killed):
                async with asyncio.timeout(CLIENT_SECONDS):
                    if (
                        await self.post("/orders", body.encode(), idempotency_key=key, **headers)
                        == 201
                    ):
                        return
            await asyncio.sleep(0.5)

    def all_ended(self) -> bool:
        statuses = set(self.statuses().values())
        return bool(statuses) and statuses <= {"COMPLETED"}

    def spans(self) -> list[Span]:
        """Return all spans, after the export of what the processes have now."""
        for tracer in self._tracers.values():
            while (batch := tracer.store.take()) is not None:
                self._exported += batch.read()
                tracer.store.done(batch)
        return decode(self._exported)


def of_order(spans: Sequence[Span], key: str) -> list[Span]:
    """Return the trace in which an order was decided on; there is one."""
    ids = {
        span.trace_id.hex()
        for span in spans
        if attributes(span).get("cloudevents.event_subject") == key
    }
    assert len(ids) == 1, f"{key} is in the traces {ids}"
    return traces(spans)[ids.pop()]


async def metrics_of(app: ASGIApp) -> str:
    """Return the metrics as Prometheus asks for them."""
    asked = {"accept": "application/openmetrics-text; version=1.0.0"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return (await client.get("/metrics", headers=asked)).text


def names(spans: Sequence[Span]) -> list[str]:
    return sorted(span.name for span in spans)


WHOLE = [
    "BookParcel",
    "POST /orders",
    "process inventory.reserved",
    "process inventory.reserved",
    "process orders.created",
    "process shipping.completed",
    "process shipping.completed",
    "process shipping.initiated",
]


def trace_orders(
    folder: Path, scenario: Callable[[TracedTown], Any], **tracing: Any
) -> tuple[list[Span], dict[str, str]]:
    """Run a scenario in virtual time until all orders have ended; return the spans and the statuses."""

    async def main() -> tuple[list[Span], dict[str, str]]:
        town = TracedTown(folder, **tracing)
        await scenario(town)
        await until(town.all_ended)
        await asyncio.sleep(120)  # What is redelivered and confirmed late.
        return town.spans(), town.statuses()

    return run(main())


async def one_order(town: TracedTown) -> None:
    await town.start_all()
    await town.place(1)


def test_trace_of_an_order_is_whole(tmp_path: Path) -> None:
    spans, statuses = trace_orders(tmp_path, one_order)
    (order,) = statuses
    found = of_order(spans, order)
    assert names(found) == WHOLE
    assert torn(found) == []


def test_span_of_a_decision_follows_the_messaging_conventions(tmp_path: Path) -> None:
    spans, _ = trace_orders(tmp_path, one_order)
    (span,) = [span for span in spans if span.name == "process orders.created"]
    assert Span.SpanKind.Name(span.kind) == "SPAN_KIND_CONSUMER"
    found = attributes(span)
    order = found.pop("cloudevents.event_subject")
    assert found.pop("messaging.message.id") == fact_id(order, "OrderCreatedEvent")
    assert found == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders.created",
        "messaging.consumer.group.name": "inventory",
    }
    (link,) = span.links
    assert (link.trace_id, link.span_id) == (span.trace_id, span.parent_span_id)


def test_request_is_the_root_and_tells_which_order_it_placed(tmp_path: Path) -> None:
    spans, (order,) = trace_orders(tmp_path, one_order)
    (root,) = [span for span in of_order(spans, order) if not span.parent_span_id]
    assert (root.name, Span.SpanKind.Name(root.kind)) == ("POST /orders", "SPAN_KIND_SERVER")
    assert attributes(root) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/orders",
        "http.response.status_code": 201,
        "url.path": "/orders",
        "http.response.header.location": [f"/orders/{order}"],
    }


def test_client_that_sends_a_traceparent_gets_its_trace_continued(tmp_path: Path) -> None:
    async def scenario(town: TracedTown) -> None:
        await town.start_all()
        await town.place(1, traceparent=f"00-{TRACE}-{PARENT}-01")

    spans, (order,) = trace_orders(tmp_path, scenario)
    found = of_order(spans, order)
    assert names(found) == WHOLE
    assert {span.trace_id.hex() for span in found} == {TRACE}
    assert torn(found) == ["0 roots", "POST /orders has lost its parent"]  # The client has it.


def test_client_whose_trace_is_not_sampled_leaves_no_span(tmp_path: Path) -> None:
    async def scenario(town: TracedTown) -> None:
        await town.start_all()
        await town.place(1, traceparent=f"00-{TRACE}-{PARENT}-00")

    spans, _ = trace_orders(tmp_path, scenario)
    assert "POST /orders" not in names(spans)
    assert TRACE not in traces(spans)


def test_trace_that_begins_is_sampled_by_the_sampler(tmp_path: Path) -> None:
    async def scenario(town: TracedTown) -> None:
        town.sample = lambda _: False
        await one_order(town)

    assert trace_orders(tmp_path, scenario)[0] == []


def test_batches_count_their_messages_and_publishes_link_to_theirs(tmp_path: Path) -> None:
    spans, (order,) = trace_orders(tmp_path, one_order)
    batches = [span for span in spans if span.name == "process TODOKU"]
    assert all(attributes(span)["messaging.batch.message_count"] >= 1 for span in batches)
    assert batches
    assert not any(span.links for span in batches), "each decision has a span that links"
    sent = [span for span in spans if span.name == "send TODOKU"]
    trace_id = of_order(spans, order)[0].trace_id
    assert trace_id in {link.trace_id for span in sent for link in span.links}


def test_histograms_have_the_trace_of_an_order_as_their_exemplar(tmp_path: Path) -> None:
    apps: list[ASGIApp] = []

    async def scenario(town: TracedTown) -> None:
        for exemplars in (*EXEMPLARS.values(), CALL_EXEMPLARS):
            exemplars.clear()  # An order of another test may have been the last one.
        await one_order(town)
        apps.extend(town.apps)

    spans, (order,) = trace_orders(tmp_path, scenario)
    trace = of_order(spans, order)[0].trace_id.hex()
    for histogram in (DURATIONS, CALL_DURATIONS):
        samples = [sample for metric in histogram.collect() for sample in metric.samples]
        found = [each.exemplar.labels["trace_id"] for each in samples if each.exemplar]
        assert trace in found
    assert f'trace_id="{trace}"' in asyncio.run(metrics_of(apps[0]))


def test_decisions_have_no_spans_of_their_own_where_batches_only_link(tmp_path: Path) -> None:
    spans, (order,) = trace_orders(tmp_path, one_order, parents=False)
    (request,) = [span for span in spans if span.name == "POST /orders"]
    assert names(traces(spans)[request.trace_id.hex()]) == ["BookParcel", "POST /orders"]
    links = [link for span in spans for link in span.links if span.name == "process TODOKU"]
    ids = {attributes(link)["messaging.message.id"] for link in links}
    assert fact_id(order, "OrderCreatedEvent") in ids
    for trace in traces(spans).values():
        assert torn(trace) == []


def test_failed_call_is_an_error_and_the_next_is_in_the_same_trace(tmp_path: Path) -> None:
    async def scenario(town: TracedTown) -> None:
        town.courier.answers = [ValueError("the carrier is down")]
        await one_order(town)

    spans, (order,) = trace_orders(tmp_path, scenario)
    found = of_order(spans, order)
    assert torn(found) == []
    calls = [span for span in found if span.name == "BookParcel"]
    assert [attributes(call).get("error.type") for call in calls] == ["Unknown", None]
    assert "due shipments.due_at" in names(found)


@pytest.mark.parametrize("point", POINTS)
def test_traces_are_whole_when_each_service_is_killed(point: str, tmp_path: Path) -> None:
    async def scenario(town: TracedTown) -> None:
        await town.start_all(lambda: dying(point, 2))
        clients = [asyncio.create_task(town.place(n)) for n in range(8)]
        async with asyncio.timeout(600):
            while not (all(client.done() for client in clients) and town.all_ended()):
                await town.restart_killed()
                await asyncio.sleep(0.25)

    spans, statuses = trace_orders(tmp_path, scenario)
    assert len(statuses) == 8
    for trace in traces(spans).values():
        assert torn(trace) == []
    for order in statuses:
        assert set(names(of_order(spans, order))) >= set(WHOLE)
