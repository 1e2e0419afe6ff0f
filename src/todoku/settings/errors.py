"""Say what is wrong with settings."""

import re
from collections.abc import Iterable


class SettingsInvalid(Exception):
    """Settings that cannot be used.

    Each problem says which one, where its value came from, what is allowed and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def without_password(text: str) -> str:
    """Return the text with the user and password of every address hidden."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)
