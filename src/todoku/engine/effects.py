"""Runs effects: calls to other systems, made after the commit that decided on them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import structlog

from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.mailbox import Mailbox
from todoku.engine.messages import PendingCommand, PendingEffect
from todoku.engine.shared_timeout import SharedTimeout
from todoku.engine.tracing import Tracer
from todoku.events import trace_fields

log = structlog.get_logger(__name__)

_traceparent: ContextVar[str | None] = ContextVar("traceparent of an effect", default=None)
_of_caller: ContextVar[str | None] = ContextVar("traceparent that was passed on", default=None)


def current_traceparent() -> str | None:
    """Return the traceparent of this effect, None if it is not traced."""
    return _traceparent.get()


def add_trace(
    _: structlog.typing.WrappedLogger, __: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the trace of the effect that runs to a log line, also to one of a plug-in; for structlog."""
    traceparent = _traceparent.get() or _of_caller.get()
    return entry if traceparent is None else {**trace_fields(traceparent), **entry}


class Effects:
    """The running effects. The result of an effect is a command, put into the mailbox.

    `handlers` has the function for each type of effect. If one fails or takes longer than
    `seconds_max`, its row falls due again.
    """

    def __init__(
        self,
        handlers: Mapping[type, Callable[[Any], Awaitable[object]]],
        mailbox: Mailbox,
        *,
        seconds_max: float,
        failpoint: Failpoint = no_failpoint,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._handlers = handlers
        self._mailbox = mailbox
        self._seconds_max = seconds_max
        self._time_limit = SharedTimeout(seconds_max)
        self._failpoint = failpoint
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, effect: PendingEffect) -> None:
        """Start an effect without waiting for it."""
        task = asyncio.create_task(self._call(effect))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def finished(self) -> None:
        """Wait for the running effects, at most `seconds_max`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._seconds_max)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the running effects; return the tasks that are ending."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._mailbox.wake()  # A slot is free for what is due.

    async def _call(self, pending: PendingEffect) -> None:
        self._failpoint("before-effect")
        span, context = None, pending.context
        if self._tracer is not None:
            span = self._tracer.effect(pending.effect, context)
            context = span.context
        if context.traceparent is not None:
            (_of_caller if self._tracer is None else _traceparent).set(context.traceparent)
        try:
            call = self._handlers[type(pending.effect)](pending.effect)
            command = await self._time_limit.wait_for(call)
        except Exception as error:
            if span is not None:
                span.end(error)
            log.warning(
                "effect_failed_will_retry",
                effect=type(pending.effect).__name__,
                event_id=pending.context.cause,
                error=repr(error),
            )
        else:
            if span is not None:
                span.end(getattr(command, "failure", None))
            self._failpoint("after-effect")
            self._mailbox.put_effect_result(PendingCommand(command, _log_failure, context))


def _log_failure(result: object) -> None:
    if isinstance(result, Exception):
        log.error("effect_result_not_recorded", error=repr(result))
