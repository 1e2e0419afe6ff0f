"""The traces of one service: its tracer, its store of spans, and what exports them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.middleware import Middleware

from todoku.settings import Settings
from todoku.telemetry import encoding
from todoku.telemetry.export import Exporter
from todoku.telemetry.http import TraceMiddleware
from todoku.telemetry.sdk import Sdk
from todoku.telemetry.store import SpanStore
from todoku.telemetry.tracer import ServiceTracer

FOLDER = "traces"
"""Where in the data folder spans are kept until they are exported."""


class Telemetry(Collector):
    """The traces of one running service."""

    def __init__(self, service: str, settings: Settings, version: str, owner: str) -> None:
        self._sdk = Sdk(service, version, owner)
        self.store = SpanStore(settings.data_dir / FOLDER, service)
        self.tracer = ServiceTracer(
            service,
            self.store,
            self._sdk.sample(),
            parents=settings.trace_messages == "parent",
            destination=settings.stream_name,
            prefix=settings.subject_prefix,
        )
        self.middleware = Middleware(TraceMiddleware, self.tracer)
        head = encoding.request(self._sdk.resource, "todoku", version)
        self._exporter = Exporter(self.store, self._sdk.endpoint, head)

    @contextmanager
    def running(self) -> "Iterator[Telemetry]":
        """Export spans for as long as the block lasts, and first what earlier processes have left."""
        self._sdk.serve_plugins()
        self.store.adopt()
        self._exporter.start()
        try:
            yield self
        finally:
            self._exporter.stop()
            self._sdk.shutdown()

    def collect(self) -> Iterable[Metric]:
        """Yield how many spans were exported and dropped."""
        yield CounterMetricFamily(
            "todoku_spans_exported",
            "Spans that the OTLP endpoint has taken.",
            self._exporter.exported,
        )
        yield CounterMetricFamily(
            "todoku_spans_dropped",
            "Spans that were dropped: the OTLP endpoint refused them, or took nothing for too long.",
            self.store.dropped,
        )
