"""What `todoku doctor` looks at."""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """What a check has found; `fix` says what to do, where something is to be done."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def ok(check: str, found: str) -> Finding:
    """All is as it should be."""
    return Finding(check, Verdict.OK, found)


def warning(check: str, found: str, *, fix: str) -> Finding:
    """It works, but not as well as it should, or not for long."""
    return Finding(check, Verdict.WARNING, found, fix)


def wrong(check: str, found: str, *, fix: str) -> Finding:
    """It does not work like this."""
    return Finding(check, Verdict.WRONG, found, fix)
