"""The error that ends a command: what failed, why, what to do, and the exit code."""

from todoku.cli.exit_codes import ExitCode


class CommandFailed(Exception):
    """The command failed. The message is printed without secrets and without a traceback."""

    def __init__(self, what: str, *, exit_code: ExitCode = ExitCode.FAILED) -> None:
        from todoku.redaction import redact  # Only a failure needs it.

        self.exit_code = exit_code
        super().__init__(f"todoku: {redact(what)}")
