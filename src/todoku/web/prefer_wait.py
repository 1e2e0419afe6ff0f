"""`Prefer: wait=N`: the client wants the response when what it asked for has ended, or after N seconds.

Source: RFC 7240, sections 2 and 4.3. What is malformed is ignored, as section 2 asks.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.types import Scope

from todoku.web.reply import SHUTDOWN

HEADER: Final = "Prefer"
APPLIED: Final = "Preference-Applied"

WAIT_SECONDS_MAX: Final = 60
"""A longer wait is cut: balancers commonly end a request after a minute."""

_find_wait = re.compile(
    r'(?:^|,)[ \t]*wait[ \t]*=[ \t]*"?(\d{1,9})"?[ \t]*(?=[;,]|$)', re.IGNORECASE
).search


class Wait(msgspec.Struct, frozen=True):
    """How long a client wants to wait at most. `stopping` is set when the server stops."""

    seconds: int
    stopping: asyncio.Event

    @property
    def applied(self) -> dict[str, str]:
        """Return the header that tells that the preference was followed."""
        return {APPLIED: f"wait={self.seconds}"}

    async def wait_for(self, ending: asyncio.Future[None]) -> None:
        """Wait until `ending` is done, the time is over, or the server stops."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait(
                (ending, stopping), timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()


def read_wait(values: Sequence[bytes], scope: Scope) -> Wait | None:
    """Return the wait that the values of the header ask for; of several the first."""
    found = _find_wait(b",".join(values).decode("latin-1"))
    if found is None:
        return None
    return Wait(min(int(found[1]), WAIT_SECONDS_MAX), scope.get(SHUTDOWN) or asyncio.Event())
