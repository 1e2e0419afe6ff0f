"""The type of decisions."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from typing_extensions import TypeVar

S = TypeVar("S", default=Any)
"""The state that the decisions of a service read and replace."""

Decide = Callable[[S, Any, datetime], tuple[S, Sequence[object]]]
"""A pure decision: `(state, message, now) → (state, events and effects)`."""
