"""What a process measures while it runs: its batches and their commits."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import Metric

SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The buckets of what takes from half a millisecond to ten seconds."""

MESSAGES: Final = (0, 1, 3, 10, 30, 100, 300, 1_000, 3_000)


class Instruments:
    """The histograms of one process; each batch is measured once."""

    def __init__(self) -> None:
        self.batch_messages = Histogram(
            "todoku_batch_messages",
            "Messages, commands and receipts in a batch; 0 if it only had due rows.",
            buckets=MESSAGES,
            registry=None,
        )
        self.batch_seconds = Histogram(
            "todoku_batch_duration_seconds",
            "Duration of a batch: its reads, decisions, writes and commit, and the wait for the database.",
            buckets=SECONDS,
            registry=None,
        )
        self.commit_seconds = Histogram(
            "todoku_database_commit_duration_seconds",
            "Duration of the COMMIT of a transaction, which waits for the disk.",
            buckets=SECONDS,
            registry=None,
        )

    def collect(self) -> Iterable[Metric]:
        """Yield the histograms."""
        for each in (self.batch_messages, self.batch_seconds, self.commit_seconds):
            yield from each.collect()
