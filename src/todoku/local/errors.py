"""Errors of what a command needs on this machine.

LocalError
├── Unavailable    a folder, a port or a program cannot be used
├── InUse          another process holds it
└── Contradictory  the settings ask for what cannot be
"""


class LocalError(Exception):
    """Something that is needed on this machine is unavailable. The message says what to do."""


class Unavailable(LocalError):
    """A folder, a port or a program cannot be used."""


class InUse(LocalError):
    """Another process holds it."""


class Contradictory(LocalError):
    """The settings ask for what cannot be, such as one port for two programs."""
