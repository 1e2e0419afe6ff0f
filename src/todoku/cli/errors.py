"""The error that ends a command: what failed, why, what to do, and the exit code."""

from todoku.cli.exit_codes import ExitCode


class CommandFailed(Exception):
    """The command failed. The message is printed without secrets and without a traceback.

    `problem` is the name of the problem type that a service answered with, if it did.
    """

    def __init__(
        self, what: str, *, exit_code: ExitCode = ExitCode.FAILED, problem: str | None = None
    ) -> None:
        from todoku.redaction import redact  # Only a failure needs it.

        self.exit_code = exit_code
        self.problem = problem
        super().__init__(f"todoku: {redact(what)}")

    @property
    def summary(self) -> str:
        """What failed, on one line: if a service refused, with the first detail that it gave."""
        what, *others = str(self).removeprefix("todoku: ").splitlines()
        return f"{what}: {others[0].strip()}" if self.problem and others else what
