"""How log lines look."""

import logging
import sys
from typing import Any, Final, Literal

import structlog

from todoku.redaction import redact

QUIET_LIBRARIES = ("alembic", "mcp", "uvicorn")
"""They talk about themselves at every start or request: only what goes wrong there is of interest."""


def configure(
    level: str,
    style: Literal["auto", "console", "json"],
    service: str,
    *processors: structlog.typing.Processor,
) -> None:
    """Write log lines of at least `level` to stderr, each with its time, its service, and what these
    processors add.

    Lines of libraries go the same way as our own. "auto" is console on a terminal, else JSON.
    """
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *processors,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Local variables of the frames hold orders, addresses and tokens: they are not logged.
    traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    render: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(traceback),
            hide_secrets,
            add_conventions,
            structlog.processors.JSONRenderer(),
        ]
        if style == "json"
        else [
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


SEVERITIES: Final = {
    "debug": ("DEBUG", 5),
    "info": ("INFO", 9),
    "warning": ("WARN", 13),
    "error": ("ERROR", 17),
    "critical": ("FATAL", 21),
}
"""OpenTelemetry's names and numbers of the levels."""


def add_conventions(
    _: structlog.typing.WrappedLogger, __: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the fields of OpenTelemetry's log data model; `trace_id` and `span_id` are named so already."""
    text, number = SEVERITIES.get(entry.get("level", ""), ("", 0))
    return {**entry, "event_name": entry["event"], "severity_text": text, "severity_number": number}


def hide_secrets(
    _: structlog.typing.WrappedLogger, __: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Redact every text of a log entry, also in its traceback."""
    return {name: _redacted(value) for name, value in entry.items()}


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case dict():
            return {name: _redacted(each) for name, each in value.items()}
        case list() | tuple():
            return [_redacted(each) for each in value]
        case BaseException():
            return redact(str(value))
        case _:
            return value
