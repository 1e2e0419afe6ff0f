"""The engine's counters and gauges for Prometheus, read at each scrape."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from todoku.engine.process import Process


class EngineMetrics(Collector):
    """The metrics of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def collect(self) -> Iterable[Metric]:
        counts, relay = self._process.counts, self._process.relay
        yield CounterMetricFamily(
            "todoku_batches", "Batches committed to the database.", value=counts.batches
        )
        yield CounterMetricFamily(
            "todoku_batches_decided_anew",
            "Batches that were decided without locks, and once more with locks: the database had rejected the"
            " result, because another process had changed what it followed from.",
            value=self._process.writer.decided_anew,
        )
        messages = CounterMetricFamily(
            "todoku_messages",
            "Messages of the stream, by outcome.",
            labels=["outcome"],
        )
        for actions, value in (
            ("acknowledged", counts.acknowledged),
            ("nacked", counts.nacked),
            ("parked", counts.parked),
        ):
            messages.add_metric([actions], value)
        yield messages
        yield CounterMetricFamily(
            "todoku_commands", "Commands executed or rejected.", value=counts.commands
        )
        yield CounterMetricFamily(
            "todoku_events_sent", "Events stored in the stream.", value=relay.events_sent
        )
        yield CounterMetricFamily(
            "todoku_events_repeated",
            "Events resent because a subscriber passed them without a receipt.",
            value=relay.events_repeated,
        )
        yield CounterMetricFamily(
            "todoku_events_unpublishable",
            "Events that the broker does not take, parked as dead letters.",
            value=relay.events_unpublishable,
        )
        yield GaugeMetricFamily(
            "todoku_mailbox_messages",
            "Messages, commands and receipts that wait for the writer.",
            value=len(self._process.mailbox),
        )
        yield GaugeMetricFamily(
            "todoku_outbox_unsent_events", "Events that wait to be published.", value=relay.unsent
        )
        lags = GaugeMetricFamily(
            "todoku_subscriber_lag_events",
            "Events of this process that were published since the first one that a `subscriber` has not"
            " consumed: at most so many wait for it.",
            labels=["subscriber"],
        )
        for reader in relay.readers:
            lags.add_metric([reader], relay.lag(reader))
        yield lags
        stream_lag = GaugeMetricFamily(
            "todoku_stream_lag_messages",
            "Messages in the stream behind those that this service has consumed: at most so many wait.",
        )
        if self._process.stream_lag is not None:
            stream_lag.add_metric([], self._process.stream_lag)
        yield stream_lag
        yield from self._process.instruments.collect()
        yield from self._cache()
        yield GaugeMetricFamily(
            "todoku_effects_running",
            "Running effects (calls to other systems).",
            value=len(self._process.effects),
        )
        yield GaugeMetricFamily(
            "todoku_recovering",
            "1 until it is known that the database lacks nothing that the stream has, and during a recovery:"
            " no effect starts.",
            value=not self._process.consumer.caught_up,
        )
        yield GaugeMetricFamily(
            "todoku_recovery_dead_letters",
            "Dead letters that hold the recovery of a restored database: nothing is decided before they"
            " are resolved.",
            value=self._process.recovery.waits_for,
        )
        yield GaugeMetricFamily(
            "todoku_pauses",
            "Pauses of the service and of what it does, as far as this process knows.",
            value=self._process.writer.pause_count,
        )
        yield GaugeMetricFamily(
            "todoku_database_available",
            "1 while the database accepts writes.",
            value=self._process.database_available,
        )
        yield GaugeMetricFamily(
            "todoku_clock_time_seconds",
            "The engine's clock as Unix time. Compare it with when it was scraped, or between processes.",
            value=self._process.clock.now().timestamp(),
        )
        yield GaugeMetricFamily(
            "todoku_broker_connected", "1 while the broker answers.", value=self._process.connected
        )
        yield GaugeMetricFamily(
            "todoku_broker_configuration_problems",
            "Misconfigurations of the stream and its durables that cannot be corrected.",
            value=len(self._process.broker.configuration_problems),
        )
        yield CounterMetricFamily(
            "todoku_broker_configuration_corrections",
            "Misconfigurations of the stream and its durables that were corrected.",
            value=self._process.broker.configuration_corrections,
        )

    def _cache(self) -> Iterable[Metric]:
        cache = self._process.writer.cache
        lookups = CounterMetricFamily(
            "todoku_state_cache_lookups",
            "States that batches needed, by `result`: a hit was in the cache, a miss was looked for in the"
            " database.",
            labels=["result"],
        )
        lookups.add_metric(["hit"], cache.hits)
        lookups.add_metric(["miss"], cache.misses)
        yield lookups
        yield GaugeMetricFamily(
            "todoku_state_cache_states", "States in the cache.", value=cache.size
        )
