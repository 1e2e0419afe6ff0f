"""The checks of `todoku doctor`."""

from enum import StrEnum

import msgspec

from todoku.redaction import redact


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
