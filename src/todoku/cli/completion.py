"""`todoku --install-completion`: install shell completion of commands, flags and choices."""

from typing import Annotated, Literal

from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import note


def install_completion(
    *,
    shell: Annotated[Literal["bash", "zsh", "fish"] | None, Parameter(show_default=False)] = None,
    show: Annotated[bool, Parameter(name="--print", negative="", show_default=False)] = False,
) -> None:
    """Install completion for bash, zsh or fish.

    Writes the completion script to the folder where the shell looks for it, and
    for bash and zsh a line that loads it to ~/.bashrc or ~/.zshrc. Repeat it
    after an upgrade.

    For example:

        todoku --install-completion
        todoku --install-completion --shell fish --print > todoku.fish

    Parameters
    ----------
    shell
        The shell; default: the one that runs this command.
    show
        Print the script to stdout, and change no file.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from todoku.cli import application

    app = application()
    try:
        chosen = shell or detect_shell()
    except ShellDetectionError as error:
        raise CommandFailed(
            "cannot detect the shell: name it with --shell.",
            exit_code=ExitCode.USAGE,
        ) from error
    if show:
        print(app.generate_completion(shell=chosen))
        return
    try:
        path = app.install_completion(shell=chosen)
    except OSError as error:
        raise CommandFailed(
            f"cannot write the completion script: {error}. Print it with --print instead.",
            exit_code=ExitCode.CANNOT_START,
        ) from error
    note(f"completion for {chosen} installed in {path}; load it with `exec {chosen}`")
