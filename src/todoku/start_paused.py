"""Starting paused: `todoku up --paused` tells its services by a variable.

The pause has an id, so that a service that is restarted after a resume is not paused again.
"""

import os
from collections.abc import Mapping

from uuid_utils import uuid7

from todoku.engine import Pause

VARIABLE = "TODOKU_START_PAUSED"
REASON = "It was started with --paused."


def to_environment(by: str) -> Mapping[str, str]:
    """Return the variable that lets services start paused, on behalf of `by`."""
    return {VARIABLE: f"{uuid7()} {by}"}


def from_environment(environment: Mapping[str, str] = os.environ) -> Pause | None:
    """Return the pause that the service begins with, None if it just starts."""
    pause_id, _, by = environment.get(VARIABLE, "").partition(" ")
    return Pause(id=pause_id, by=by or "unknown", reason=REASON) if pause_id else None
