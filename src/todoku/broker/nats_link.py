"""One connection to a NATS server: what is sent, what is heard, and replies.

It is never mended. When it is lost it fails everything that waits on it, and a new one takes its
place; so there is one way of healing, whatever has happened.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import structlog
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError

from todoku.broker.nats_wire import Client, Inbox, Message, publication
from todoku.broker.port import BrokerError, BrokerUnavailable, BrokerUnsuitable

SERVER_VERSION_MIN = (2, 12)
"""The first nats-server that stores a batch atomically."""

CONNECTION: dict[str, Any] = {
    "allow_reconnect": False,
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.25,  # Seconds between attempts at the same server.
    "connect_timeout": 2,
    "ping_interval": 2,  # A server that leaves three of these unanswered is gone.
    "pending_size": 0,  # See `_at_once`.
    "skip_subject_validation": True,
}
CLOSE_SECONDS_MAX = 0.8
DRAIN_SECONDS_MAX = 0.5
HEADER_BYTES_MAX = 512
"""What our headers add to a payload at most; the server counts them too."""

LOOK_SECONDS = 0.5
"""How often the connection is looked at: nats-py does not call back when the last flush before it
closes fails."""

NO_RESPONDERS = "503"

T = TypeVar("T")

log = structlog.get_logger()


class ServiceUnreachable(BrokerUnavailable):
    """Nothing listens on the subject: no stream stores it, or JetStream is not there."""


class _PendingReply:
    """Replies that are on their way."""

    def __init__(self, expected: int) -> None:
        self.landed: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._expected = expected
        self._replies: list[bytes] = []

    def land(self, message: Message) -> None:
        if message.headers.status == NO_RESPONDERS:
            self.fail(ServiceUnreachable("nobody answers there"))
            return
        self._replies.append(message.body)
        if len(self._replies) == self._expected and not self.landed.done():
            self.landed.set_result(self._replies)

    def fail(self, problem: BrokerError) -> None:
        if not self.landed.done():
            self.landed.set_exception(problem)


class Link:
    """One connection, from its making to its loss.

    `trouble` is told of each failure to connect, since connecting goes on until it succeeds.
    """

    def __init__(self, trouble: Callable[[BrokerError], None]) -> None:
        self._client = Client()
        self._trouble = trouble
        self._inbox = ""
        self._flights: dict[str, _PendingReply] = {}
        self._flights_begun = 0
        self._stirred = asyncio.Event()
        self._forbidden = ("", 0.0)

    @property
    def alive(self) -> bool:
        return self._client.is_connected

    @property
    def unsent_bytes(self) -> int:
        return self._client.pending_data_size

    @property
    def body_bytes_max(self) -> int:
        return self._client.max_payload - HEADER_BYTES_MAX

    async def open(self, urls: list[str], options: Mapping[str, Any]) -> None:
        """Connect, trying the servers in turn until one is reached, and check its version."""
        try:
            await self._client.connect(
                urls,
                **{**options, **CONNECTION},
                error_cb=self._errored,
                closed_cb=self._closed,
            )
        except (NatsError, OSError, TimeoutError) as error:
            raise _not_connected(error) from error
        self._check_version()
        self._inbox = self.new_inbox()
        self.hear(f"{self._inbox}.*", Inbox(self._replied))

    async def lost(self) -> None:
        """Return when the connection is no more."""
        while self.alive:
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), LOOK_SECONDS)

    async def close(self) -> None:
        """Send what is buffered, if that takes no longer than a moment, and let go."""
        for flight in self._flights.values():
            flight.fail(BrokerUnavailable("the connection to the broker was lost"))
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._client.close()

    def send(self, subject: str, body: bytes, reply: str = "") -> None:
        """Put a message into the buffer, which is flushed when the event loop comes round."""
        if len(body) > self._client.max_payload:  # The server would hang up on it.
            raise BrokerUnavailable(
                f"{len(body)} bytes are more than the NATS server takes at once"
            )
        self.send_all([publication(subject, body, reply)])

    def send_all(self, publications: Iterable[bytes]) -> None:
        """The same for many, as `publication` makes them; none may be larger than the server takes."""
        _at_once(self._client.write(b"".join(publications)))

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    def hear(self, subject: str, inbox: Inbox, group: str = "") -> NatsSubscription:
        return _at_once(
            self._client.subscribe(subject, queue=group, future=inbox)  # type: ignore[arg-type]
        )

    def unhear(self, subscription: NatsSubscription) -> None:
        with contextlib.suppress(BrokerUnavailable):
            _at_once(subscription.unsubscribe())

    async def drain(self, subscription: NatsSubscription) -> None:
        """Hear what is on its way already, and nothing after it."""
        with contextlib.suppress(TimeoutError, NatsError):
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await subscription.drain()  # type: ignore[no-untyped-call]

    async def replies(
        self, send: Callable[[str], None], *, expected: int, seconds: float
    ) -> list[bytes]:
        """Call `send` with a new reply subject, and wait for `expected` replies to it."""
        self._flights_begun += 1
        reply = f"{self._inbox}.{self._flights_begun}"
        flight = self._flights[reply] = _PendingReply(expected)
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                send(reply)
                return await flight.landed
        except TimeoutError:
            raise self._unanswered(begun, seconds) from None
        finally:
            del self._flights[reply]

    def _replied(self, message: Message) -> None:
        flight = self._flights.get(message.subject)
        if flight is not None:
            flight.land(message)

    def _unanswered(self, begun: float, seconds: float) -> BrokerError:
        # A forbidden publish is not answered; the reason comes as an error of the connection.
        reason, at = self._forbidden
        if reason and at >= begun:
            return BrokerUnsuitable(f"{reason}: grant this user that permission")
        return BrokerUnavailable(f"the broker did not answer within {seconds} s")

    def _check_version(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < SERVER_VERSION_MIN:
            raise BrokerUnsuitable(
                f"nats-server {version.major}.{version.minor} cannot store a batch atomically:"
                " run 2.12 or newer"
            )

    async def _errored(self, error: Exception) -> None:
        self._stirred.set()
        if "permissions violation" in str(error).lower():
            self._forbidden = (str(error), asyncio.get_running_loop().time())
        elif not self.alive:
            self._trouble(BrokerUnavailable(f"the broker cannot be reached: {error}"))

    async def _closed(self) -> None:
        self._stirred.set()


def _at_once(doing: Coroutine[Any, Any, T]) -> T:
    """Run a command of nats-py to its end, here and now.

    With a `pending_size` of 0 a command is appended to a buffer and does not wait, so it needs no
    task of its own; and when the connection is lost it raises, instead of keeping it for later.
    """
    try:
        doing.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except NatsError as error:
        raise BrokerUnavailable(f"the broker cannot be told: {error}") from error
    doing.close()
    raise BrokerUnavailable("the connection to the broker is going down")


def _not_connected(error: Exception) -> BrokerError:
    if "authorization" in str(error).lower():
        return BrokerUnsuitable(f"the broker refuses this user ({error}): check the credentials")
    return BrokerUnavailable(f"the broker cannot be reached: {error or type(error).__name__}")
