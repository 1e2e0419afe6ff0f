"""`todoku --install-completion`, with the real shells."""

import shutil
import subprocess
from pathlib import Path

import pytest
from calling import Caller

from todoku.cli.exit_codes import ExitCode

ASK_BASH = """
source "$1"; shift
COMP_LINE="todoku $*"; COMP_POINT=${#COMP_LINE}
COMP_WORDS=(todoku "$@"); COMP_CWORD=$#
_todoku
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion script for bash."""
    folder = tmp_path_factory.mktemp("completion")
    script = folder / "todoku.bash"
    script.write_text(Caller(folder).ok("--install-completion", "--shell", "bash", "--print").out)
    return script


@pytest.mark.skipif(not shutil.which("bash"), reason="asks bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (("ord",), {"order"}),
        (("order", ""), {"list", "place", "show", "watch"}),
        (("order", "place", "--wa"), {"--watch"}),
        (("order", "list", "--status", "C"), {"COMPLETED", "CANCELLED_NO_STOCK"}),
        (("run", "o"), {"orders"}),
        (("up", "--orders-p"), {"--orders-port"}),
    ],
)
def test_bash_completes_commands_flags_and_choices(
    typed: tuple[str, ...], completed: set[str], script: Path
) -> None:
    answer = subprocess.run(
        ["bash", "--norc", "-c", ASK_BASH, "bash", str(script), *typed],
        capture_output=True,
        text=True,
        check=True,
    )

    assert completed <= set(answer.stdout.split())
    assert all(word.startswith(typed[-1]) for word in answer.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_accepts_its_completion_script(shell: str, todoku_alone: Caller) -> None:
    result = todoku_alone.ok("--install-completion", "--shell", shell, "--print")

    assert "shipment" in result.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.out, text=True, check=True)


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("bash", {".bashrc", ".local/share/bash-completion/completions/todoku"}),
        ("zsh", {".zshrc", ".zsh/completions/_cyclopts_todoku"}),
        ("fish", {".config/fish/completions/todoku.fish"}),
    ],
)
def test_completion_is_installed_in_folder_of_shell(
    shell: str, files: set[str], todoku_alone: Caller
) -> None:
    home = todoku_alone.folder

    result = todoku_alone("--install-completion", "--shell", shell, HOME=str(home))

    assert result.code == ExitCode.OK
    assert {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()} == files
    assert f"`exec {shell}`" in result.err


def test_unwritable_completion_folder_is_reported(todoku_alone: Caller) -> None:
    (todoku_alone.folder / "home").write_text("")

    result = todoku_alone(
        *("--install-completion", "--shell", "fish"), HOME=str(todoku_alone.folder / "home")
    )

    assert result.code == ExitCode.CANNOT_START
    assert "--print" in result.err
    assert "Traceback" not in result.err
