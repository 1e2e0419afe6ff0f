"""Run every code block of the README in order, and compare what it prints with the page.

bash runs each `sh` block in the root of the project. A `text` block after it shows the output, where `…`
stands for any text. A comment before a block gives its mode:

    <!-- keeps running -->              run in the background, until the next of its kind, or the end
    <!-- again until it prints this --> repeat until the output is the one shown
    <!-- dry run -->                    `make --dry-run`, since these are the tests themselves

The blocks are run unchanged. The environment redirects ports and data: curl by its configuration file,
Todoku by `TODOKU_…`, and make does not install anything.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from end_to_end.running import BOUND_SECONDS, CapturedOutput

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.ja.md")
PORTS = {
    "TODOKU_ORDERS_PORT": 8080,
    "TODOKU_INVENTORY_PORT": 8081,
    "TODOKU_SHIPPING_PORT": 8082,
    "TODOKU_NATS_PORT": 4222,
    "TODOKU_CONSOLE_PORT": 8085,
}
POLL_SECONDS = 0.1

BLOCK = re.compile(
    r"(?:^<!-- (?P<mode>[^>]+) -->\n)?"
    r"^```sh\n(?P<code>.*?)^```\n"
    r"(?:\n^```text\n(?P<printed>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


class Block(msgspec.Struct, frozen=True):
    """Commands, the mode in which they run, and the output that the page shows."""

    mode: str | None
    code: str
    printed: str | None

    def is_printed(self, output: str) -> bool:
        """Return whether the page shows this output; without a `text` block any output is right."""
        if self.printed is None:
            return True
        shown = "[\\s\\S]*?".join(re.escape(part) for part in self.printed.strip().split("…"))
        return re.fullmatch(shown, output.strip()) is not None


def blocks_of(readme: str) -> list[Block]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    blocks = [Block(**match.groupdict()) for match in BLOCK.finditer(text)]
    fences = len(re.findall(r"^```\w+$", text, re.MULTILINE))
    assert fences == len(blocks) + sum(block.printed is not None for block in blocks)
    return blocks


def _configures_these_tests(name: str) -> bool:
    """Return whether a variable configures these tests, which run under make, or todoku."""
    return name.startswith(("TODOKU_", "MAKE", "MFLAGS")) or name == "ARGS"


class Reader:
    """Runs the blocks of a page as a reader does, on free ports and in a folder of its own."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self._ports = dict(zip(PORTS.values(), ports, strict=True))
        (folder / ".curlrc").write_text(
            "".join(
                f'connect-to = "127.0.0.1:{usual}:127.0.0.1:{port}"\n'
                for usual, port in self._ports.items()
            )
        )
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not _configures_these_tests(name)
            },
            **{name: str(self._ports[usual]) for name, usual in PORTS.items()},
            "TODOKU_DATA_DIR": str(folder / "data"),
            # Long enough to cancel an order before the carrier is called.
            "TODOKU_CARRIER_DELAY_SECONDS": "2",
            "TODOKU_CARRIER_SUCCESS_RATE": "1",
            "CURL_HOME": str(folder),
            # `make install` has already installed what runs these tests.
            "MAKEFLAGS": "INSTALLED=",
            "NO_COLOR": "1",
        }
        self._background = ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._background.close()

    def run(self, block: Block) -> None:
        match block.mode:
            case None:
                self._run_once(block)
            case "keeps running":
                self._background.close()
                self._background.enter_context(self._running(block))
            case "again until it prints this":
                self._repeat(block)
            case "dry run":
                subprocess.run(
                    [*block.code.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True
                )
            case unknown:
                raise AssertionError(f"unknown mode {unknown!r}")

    def _run_once(self, block: Block) -> None:
        output = self._output(block)
        assert block.is_printed(output), output

    def _repeat(self, block: Block) -> None:
        deadline = time.monotonic() + BOUND_SECONDS
        while not block.is_printed(output := self._output(block)):
            assert time.monotonic() < deadline, output
            time.sleep(POLL_SECONDS)

    def _output(self, block: Block) -> str:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
        )
        assert ran.returncode == 0, f"{block.code}\n{ran.stdout}\n{ran.stderr}"
        return self._with_usual_ports(ran.stdout)

    def _with_usual_ports(self, output: str) -> str:
        """Return the output as it is with the usual ports."""
        for usual, port in self._ports.items():
            output = output.replace(f"127.0.0.1:{port}", f"127.0.0.1:{usual}")
        return output

    @contextmanager
    def _running(self, block: Block) -> Iterator[None]:
        process = subprocess.Popen(
            ["bash", "-c", block.code],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        output = CapturedOutput(process.stdout)
        try:
            output.until("Place an order:")
            shown, _, _ = "\n".join(output.lines).partition("Place an order:")
            assert block.is_printed(self._with_usual_ports(shown)), shown
            yield
        finally:
            # Like Ctrl-C in a terminal, which also reaches make.
            os.killpg(process.pid, signal.SIGINT)
            output.until_end()
            process.wait(BOUND_SECONDS)
            process.stdout.close()
        assert "stopped" in output.lines


def test_every_block_prints_what_the_page_shows(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    with Reader(tmp_path, free_ports(len(PORTS))) as reader:
        for block in blocks_of(READMES[0]):
            reader.run(block)


def test_both_languages_have_the_same_blocks() -> None:
    """So running the blocks of one page covers both."""
    english, japanese = map(blocks_of, READMES)
    assert english == japanese


def test_tests_run_in_the_environment_of_the_readme() -> None:
    """Otherwise the blocks would run another Todoku than the one under test."""
    assert Path(sys.prefix) == ROOT / ".venv"
