"""The metrics of one running service: the engine's, its own, and those of the process."""

import platform
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import todoku
from todoku.descriptor import ServiceDescriptor, resolve
from todoku.engine import DatabaseMetrics, EngineMetrics, Process, engine_readings
from todoku.web import Backend


class BuildInfo(Collector):
    """What runs: a gauge that is always 1, with the versions as labels."""

    def __init__(self, service: str) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield the gauge."""
        info = GaugeMetricFamily(
            "todoku_build_info",
            "1; its labels are the `service`, the `version` of Todoku, and that of Python.",
            labels=["service", "version", "python"],
        )
        info.add_metric([self._service, todoku.__version__, platform.python_version()], 1)
        yield info


class ServiceMetrics(msgspec.Struct, frozen=True):
    """What `/metrics` shows beside HTTP requests; `refresh` is awaited before it is collected."""

    collectors: Sequence[Collector]
    refresh: Callable[[], Awaitable[None]]

    @classmethod
    def of(
        cls, descriptor: ServiceDescriptor, process: Process, backend: Backend
    ) -> "ServiceMetrics":
        """Return the metrics of a service that runs as this process."""
        readings = [*engine_readings(process, backend.database), *resolve(descriptor.readings)]
        read: Any = backend.read
        database = DatabaseMetrics(readings, read, process.clock.now)
        collectors = [
            BuildInfo(descriptor.name),
            EngineMetrics(process),
            *resolve(descriptor.collectors),
            database,
            ProcessCollector(registry=None),
        ]
        return cls(collectors, database.refresh)
