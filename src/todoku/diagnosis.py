"""Report what `todoku doctor` finds: the result of a check, and how a service contributes some."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec

from todoku.redaction import redact

ReadNewest: TypeAlias = Callable[[str, int], Iterator[bytes]]
"""Yields the newest items of a list of a running service, as JSON: `(path, items_max)`."""


class CheckStatus(StrEnum):
    """The severity of a result."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class CheckResult(msgspec.Struct, frozen=True):
    """The result of a check; `fix` is what to do, if anything."""

    check: str
    verdict: CheckStatus
    found: str
    fix: str = ""


def ok(check: str, found: str) -> CheckResult:
    """Return a result without a problem."""
    return CheckResult(check, CheckStatus.OK, redact(found))


def warning(check: str, found: str, *, fix: str) -> CheckResult:
    """Return a result that needs attention: degraded, or about to fail."""
    return CheckResult(check, CheckStatus.WARNING, redact(found), redact(fix))


def wrong(check: str, found: str, *, fix: str) -> CheckResult:
    """Return a result that keeps Todoku from working."""
    return CheckResult(check, CheckStatus.WRONG, redact(found), redact(fix))


Checks: TypeAlias = Callable[[ReadNewest], Iterable[CheckResult]]
"""Checks a running service by what it answers over HTTP."""
