"""How a command says that it failed: what and why, what to do, and an exit code."""

from todoku.cli.exit_codes import ExitCode


class CommandFailed(Exception):
    """A command could not do what it was asked. Printed as it is, without a traceback."""

    def __init__(self, what: str, *, exit_code: ExitCode = ExitCode.FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(f"todoku: {what}")
