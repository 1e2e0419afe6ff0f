"""Match subjects with patterns, as NATS does."""

from functools import cache


@cache
def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject matches a pattern: `*` is one token, a final `>` one or more."""
    wanted, words = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(
        w in ("*", word) for w, word in zip(wanted, words, strict=True)
    )
