"""Prometheus metrics of the feed."""

import time
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from todoku.orders.store import feed


class FeedMetrics(Collector):
    """How far the feed is behind what is committed."""

    def collect(self) -> Iterable[Metric]:
        complete_at = feed.complete_at
        yield GaugeMetricFamily(
            "todoku_feed_delay_seconds",
            "How long ago the feed was last known to have everything that is committed; 0 on SQLite.",
            value=0.0 if complete_at is None else time.monotonic() - complete_at,
        )
