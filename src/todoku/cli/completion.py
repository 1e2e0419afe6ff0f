"""`todoku --install-completion`: lets a shell complete commands, flags and choices."""

from typing import Annotated, Literal

from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import say


def install_completion(
    *,
    shell: Annotated[Literal["bash", "zsh", "fish"] | None, Parameter(show_default=False)] = None,
    show: Annotated[bool, Parameter(name="--print", negative="", show_default=False)] = False,
) -> None:
    """Let bash, zsh or fish complete what is typed.

    Writes the completions where the shell looks for them, and for bash and zsh a
    line to load them at the end of ~/.bashrc or ~/.zshrc. To be done again after
    an upgrade.

    For example:

        todoku --install-completion
        todoku --install-completion --shell fish --print > todoku.fish

    Parameters
    ----------
    shell
        The shell; without it, the one that this was typed in.
    show
        Write the completions to stdout, and nothing to any file.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from todoku.cli import application

    app = application()
    try:
        chosen = shell or detect_shell()
    except ShellDetectionError as error:
        raise CommandFailed(
            "which shell this is cannot be seen from here: name it with --shell.",
            exit_code=ExitCode.USAGE,
        ) from error
    if show:
        print(app.generate_completion(shell=chosen))
        return
    try:
        path = app.install_completion(shell=chosen)
    except OSError as error:
        raise CommandFailed(
            f"the completions cannot be written: {error}. Write them yourself, with --print.",
            exit_code=ExitCode.CANNOT_START,
        ) from error
    say(f"{chosen} completes todoku from now on, by {path}; begin with `exec {chosen}`")
