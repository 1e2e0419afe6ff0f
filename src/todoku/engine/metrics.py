"""What the engine has done and what waits, for Prometheus. Read when asked, at no cost otherwise."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from todoku.engine.process import Process


class EngineMetrics(Collector):
    """The figures of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def collect(self) -> Iterable[Metric]:
        counts, relay = self._process.counts, self._process.relay
        yield CounterMetricFamily(
            "todoku_batches", "Batches committed to the database.", value=counts.batches
        )
        messages = CounterMetricFamily(
            "todoku_messages",
            "Messages from the stream, by what became of them.",
            labels=["outcome"],
        )
        for actions, value in (
            ("settled", counts.settled),
            ("put_back", counts.nacked),
            ("parked", counts.parked),
        ):
            messages.add_metric([actions], value)
        yield messages
        yield CounterMetricFamily(
            "todoku_commands", "Commands carried out or refused.", value=counts.commands
        )
        yield CounterMetricFamily(
            "todoku_events_sent", "Events stored in the stream.", value=relay.events_sent
        )
        yield CounterMetricFamily(
            "todoku_events_repeated", "Events sent again on evidence.", value=relay.events_repeated
        )
        yield GaugeMetricFamily(
            "todoku_mailbox_messages",
            "What waits for the writer.",
            value=len(self._process.mailbox),
        )
        yield GaugeMetricFamily(
            "todoku_outbox_unsent_events", "Events that wait to be sent.", value=relay.unsent
        )
        yield GaugeMetricFamily(
            "todoku_effects_running",
            "Calls outside under way.",
            value=len(self._process.effects),
        )
        yield GaugeMetricFamily(
            "todoku_broker_connected", "1 while the broker answers.", value=self._process.connected
        )
