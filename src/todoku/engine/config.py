"""The limits and intervals of the engine."""

from pathlib import Path

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How many times a failing message is delivered before it is parked.

    A decision that raises may succeed after another event or with a new version; an unknown event
    type waits until a rolling upgrade is complete.

    failing_attempts_max: deliveries of a message whose decision raises.
    unknown_attempts_max: deliveries of a message of an unknown event type.
    backoff_seconds_max: the longest pause between two deliveries; it doubles from one second on.
    """

    failing_attempts_max: int = 5
    unknown_attempts_max: int = 12
    backoff_seconds_max: float = 60.0

    def delay_seconds(self, attempt: int) -> float:
        """Return the pause after the `attempt`-th delivery."""
        return min(2.0 ** min(attempt - 1, 32), self.backoff_seconds_max)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and intervals of the engine.

    batch_max: messages, commands and receipts in one transaction, and events in one publish.
    credit: messages of the stream that are requested and not yet handled.
    commands_max: commands that wait; more are rejected with `MailboxFull`.
    backlog_max: events that wait for the broker; above that, commands are rejected.
    receipts_max: receipts that wait; more are dropped, which costs one redelivery each.
    effects_max: effects that run at the same time.
    window_max: events that wait for the broker in memory; the others are read from the outbox.
    progress_check_seconds: how often the progress of subscribers is compared with the outbox.
    lease_seconds: how long a process counts as alive after it has renewed its lease, which happens three
        times as often, where several share a database.
    housekeeping_seconds: how often a process that has its database to itself prunes it.
    effect_timeout_seconds: how long an effect may take before it is cancelled and retried.
    inbox_retention_seconds: how long the id of a handled event is kept; longer than the stream keeps
        the event.
    key_retention_seconds: how long an idempotency key is kept after its use.
    position_lag_max: how far the saved stream position may be behind what a service that handles little has
        passed.
    prune_count: inbox entries or idempotency keys that are deleted in one transaction.
    retry_policy: how a failing message is retried.
    partitions: into how many partitions the processes of a service that share a database divide what they
        read; with more than one, events are published with slots.
    audit: whether the audit log is written.
    erasure_file: where the persons that were erased are kept beside the database.
    """

    batch_max: int = 1_500
    credit: int = 2_000
    commands_max: int = 2_000
    backlog_max: int = 500_000
    receipts_max: int = 10_000
    effects_max: int = 500
    window_max: int = 10_000
    progress_check_seconds: float = 2.0
    lease_seconds: float = 6.0
    housekeeping_seconds: float = 5.0
    effect_timeout_seconds: float = 10.0
    inbox_retention_seconds: float = 172_800.0
    key_retention_seconds: float = 86_400.0
    position_lag_max: int = 1_000
    prune_count: int = 1_000
    retry_policy: RetryPolicy = RetryPolicy()
    partitions: int = 1
    audit: bool = False
    erasure_file: Path | None = None
