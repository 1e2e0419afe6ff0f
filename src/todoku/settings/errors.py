"""Say what is wrong with settings."""

from collections.abc import Iterable


class SettingsInvalid(Exception):
    """Settings that cannot be used.

    Each problem says which one, where its value came from, what is allowed and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
