"""Notice that a stream was rolled back to an older image of itself.

A restored disk or snapshot keeps the stream's time of creation, so only its last sequence number tells.
"""

from collections.abc import Mapping

EPOCHS_MAX = 8
"""How many epochs of a stream are kept: the current one, and those that a roll-back may return to."""


class SequenceHistory:
    """Hold the highest sequence number that this process has seen in each epoch of a stream."""

    def __init__(self) -> None:
        self.highest_by_epoch: dict[str, int] = {}

    def highest(self, stream_epoch: str) -> int:
        """Return the highest sequence number seen in this epoch, 0 if there is none."""
        return self.highest_by_epoch.get(stream_epoch, 0)

    def note(self, stream_epoch: str, sequence: int) -> None:
        """Note that the stream has reached this sequence number."""
        highest = self.highest_by_epoch
        highest[stream_epoch] = max(highest.pop(stream_epoch, 0), sequence)
        while len(highest) > EPOCHS_MAX:
            del highest[next(iter(highest))]


def with_ended(earlier: Mapping[str, int], stream_epoch: str, last_sequence: int) -> dict[str, int]:
    """Return the earlier epochs of a stream once `stream_epoch` is one of them: of each, the sequence number
    up to which the stream still holds its messages."""
    epochs = {epoch: min(shared, last_sequence) for epoch, shared in earlier.items()}
    epochs.pop(stream_epoch, None)
    epochs[stream_epoch] = last_sequence
    return dict(list(epochs.items())[-EPOCHS_MAX:])
