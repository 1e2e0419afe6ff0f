"""Prometheus metrics of HTTP requests, and a service's other collectors.

Names and labels follow OpenTelemetry's HTTP semantic conventions in their Prometheus form. The
histogram's `_count` is the number of requests.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.registry import Collector

from todoku.events import Exemplars

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """A metrics registry. Each application has its own, so that one process can run several services."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        self.registry = CollectorRegistry()
        self._durations = Histogram(
            "http_server_request_duration_seconds",
            "Duration of HTTP requests.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Histogram, Exemplars]] = {}
        for collector in collectors:
            self.registry.register(collector)

    def observe(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        traceparent: str | None = None,
    ) -> None:
        """Record a request. `route` is a path template, or empty if no route matched; the
        `traceparent` tells its trace."""
        key = (method if method in METHODS else "_OTHER", route, status)
        if (found := self._children.get(key)) is None:
            found = self._durations.labels(*key), Exemplars(BUCKETS_SECONDS)
            self._children[key] = found
        child, exemplars = found
        child.observe(seconds, exemplars.of(traceparent, seconds))
