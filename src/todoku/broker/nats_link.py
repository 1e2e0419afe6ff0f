"""Wrap one connection to a NATS server: publish, subscribe, request and reply.

A link never reconnects. When the connection is lost, every pending reply fails and the supervisor
opens a new link: one recovery path, whatever has happened.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import structlog
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError

from todoku.broker.nats_wire import Client, Message, ReplyInbox, publication
from todoku.broker.permissions import API_PREFIX
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
"""Upper bound of the headers that a publication adds; the server counts them as payload."""

LOOK_SECONDS = 0.5
"""How often the connection state is polled: nats-py does not call back when the last flush before it
closes fails."""

NO_RESPONDERS = "503"

VIOLATION = re.compile(
    r"Permissions Violation for (?P<operation>\w+) to \"(?P<subject>[^\"]*)\"", re.IGNORECASE
)

T = TypeVar("T")

log = structlog.get_logger()


class ServiceUnreachable(BrokerUnavailable):
    """Raised when nobody subscribes to the subject: no stream stores it, or JetStream is off."""


class Refused(BrokerUnsuitable):
    """Raised when the server does not know this user."""


class Forbidden(BrokerUnsuitable):
    """Raised when this user may not publish on a subject."""

    def __init__(self, operation: str, subject: str) -> None:
        super().__init__(
            f"the NATS user of this service may not {operation} {subject}: grant this permission"
            " (`todoku broker-config` writes those of every service)"
        )


class _PendingReply:
    """Collect the replies to one request on these subjects."""

    def __init__(self, expected: int, subjects: Collection[str] = ()) -> None:
        self.subjects = subjects
        self.replies: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._expected = expected
        self._collected: list[bytes] = []

    def add(self, message: Message) -> None:
        """Add a reply; those that come after the last expected one are ignored."""
        if self.replies.done():
            return
        if message.headers.status == NO_RESPONDERS:
            self.fail(ServiceUnreachable("no responders"))
            return
        self._collected.append(message.body)
        if len(self._collected) == self._expected:
            self.replies.set_result(self._collected)

    def fail(self, problem: BrokerError) -> None:
        """Let the request fail, unless it has its replies."""
        if not self.replies.done():
            self.replies.set_exception(problem)


class Link:
    """Hold one connection, from connecting to its loss.

    `on_problem` is called with each failure to connect, since connecting is retried until it succeeds.
    `api_prefix` is where JetStream takes requests of this user: elsewhere in an account that imports it.
    """

    def __init__(
        self, on_problem: Callable[[BrokerError], None], api_prefix: str = API_PREFIX
    ) -> None:
        self.api_prefix = api_prefix
        self._client = Client(self._on_forbidden)
        self._on_problem = on_problem
        self._reply_prefix = ""
        self._pending: dict[str, _PendingReply] = {}
        self._requests_sent = 0
        self._changed = asyncio.Event()
        self.forbidden: dict[str, str] = {}
        """What this user may not do, by the subject, as far as it was tried."""

    @property
    def alive(self) -> bool:
        return self._client.is_connected

    @property
    def unsent_bytes(self) -> int:
        return self._client.pending_data_size

    @property
    def admits_anybody(self) -> bool:
        """Return whether the server takes clients that show neither a credential nor a certificate."""
        return self._client.admits_anybody

    @property
    def body_bytes_max(self) -> int:
        return self._client.max_payload - HEADER_BYTES_MAX

    async def open(self, urls: list[str], options: Mapping[str, Any]) -> None:
        """Connect, trying the servers in turn until one is reached, and check its version."""
        try:
            await self._client.connect(
                urls,
                **{**options, **CONNECTION},
                error_cb=self._on_error,
                closed_cb=self._on_closed,
            )
        except (NatsError, OSError, TimeoutError) as error:
            raise _not_connected(error) from error
        self._check_version()
        self._reply_prefix = self.new_inbox()
        self.subscribe(f"{self._reply_prefix}.*", ReplyInbox(self._on_reply))

    async def lost(self) -> None:
        """Wait until the connection is lost."""
        while self.alive:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()

    async def close(self) -> None:
        """Flush the send buffer, for less than a second, and disconnect."""
        self.fail_pending("the connection to the broker was lost")
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._client.close()

    def fail_pending(self, reason: str) -> None:
        """Fail the requests that wait for a reply: it will not come, or not soon."""
        for pending in self._pending.values():
            pending.fail(BrokerUnavailable(reason))

    def send(self, subject: str, body: bytes, reply: str = "") -> None:
        """Append a message to the send buffer, which is flushed in the next turn of the event loop."""
        if len(body) > self._client.max_payload:  # The server would hang up on it.
            raise BrokerUnavailable(
                f"a message of {len(body)} bytes on {subject} exceeds the NATS server's max_payload"
                f" ({self._client.max_payload}): raise max_payload"
            )
        self.send_all([publication(subject, body, reply)])

    def send_all(self, publications: Iterable[bytes]) -> None:
        """Append many encoded publications; none may exceed the server's max_payload."""
        _at_once(self._client.write(b"".join(publications)))

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    def subscribe(self, subject: str, inbox: ReplyInbox, group: str = "") -> NatsSubscription:
        return _at_once(
            self._client.subscribe(subject, queue=group, future=inbox)  # type: ignore[arg-type]
        )

    def unsubscribe(self, subscription: NatsSubscription) -> None:
        with contextlib.suppress(BrokerUnavailable):
            _at_once(subscription.unsubscribe())

    async def drain(self, subscription: NatsSubscription) -> None:
        """Deliver what is in flight already, and nothing after it."""
        with contextlib.suppress(TimeoutError, NatsError):
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await subscription.drain()  # type: ignore[no-untyped-call]

    async def replies(
        self,
        send: Callable[[str], None],
        *,
        expected: int,
        seconds: float,
        subjects: Collection[str] = (),
    ) -> list[bytes]:
        """Call `send` with a new reply subject and return its `expected` replies. Raises `Forbidden` if the
        server does not let this user publish on one of the `subjects`, which it does not answer."""
        self._requests_sent += 1
        reply = f"{self._reply_prefix}.{self._requests_sent}"
        pending = self._pending[reply] = _PendingReply(expected, subjects)
        try:
            async with asyncio.timeout(seconds):
                send(reply)
                return await pending.replies
        except TimeoutError:
            raise BrokerUnavailable(f"the broker did not answer within {seconds} s") from None
        finally:
            del self._pending[reply]

    def _on_reply(self, message: Message) -> None:
        pending = self._pending.get(message.subject)
        if pending is not None:
            pending.add(message)

    def _on_forbidden(self, complaint: str) -> None:
        """Note what this user may not do, and fail the requests that need it. The server answers them only
        in this way."""
        found = VIOLATION.search(complaint)
        if found is None:
            return
        subject = found["subject"]
        operation = "subscribe to" if found["operation"].lower() == "subscription" else "publish on"
        problem = Forbidden(operation, subject)
        if subject not in self.forbidden:
            log.error("broker_permission_missing", operation=operation, subject=subject)
        self.forbidden[subject] = str(problem)
        for pending in self._pending.values():
            if subject in pending.subjects:
                pending.fail(problem)

    def _check_version(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < SERVER_VERSION_MIN:
            raise BrokerUnsuitable(
                f"nats-server {version.major}.{version.minor} does not support atomic batch publishing:"
                " run 2.12 or newer"
            )

    async def _on_error(self, error: Exception) -> None:
        self._changed.set()
        if not self.alive:
            self._on_problem(BrokerUnavailable(f"the broker cannot be reached: {error}"))

    async def _on_closed(self) -> None:
        self._changed.set()


def _at_once(doing: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of nats-py that never waits to its end, without a task.

    With a `pending_size` of 0 a command is appended to a buffer and never waits. When the connection
    is lost it raises, instead of buffering the command.
    """
    try:
        doing.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except NatsError as error:
        raise BrokerUnavailable(f"cannot send to the broker: {error}") from error
    doing.close()
    raise BrokerUnavailable("the connection to the broker is closing")


def _not_connected(error: Exception) -> BrokerError:
    if "authorization" in str(error).lower():
        return Refused(f"the broker refuses this user ({error}): check the credentials")
    return BrokerUnavailable(f"the broker cannot be reached: {error or type(error).__name__}")
