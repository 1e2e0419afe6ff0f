"""Every code block of the READMEs is run, in their order, and does what they say.

A `sh` block is run by bash in the root of the project; a `text` block behind it shows what it prints, where
`…` stands for any text. A comment before a block says how it is run:

    <!-- keeps running -->              in the background, until the next of its kind, or the end
    <!-- again until it prints this --> a question that is asked until the answer is the one shown
    <!-- dry run -->                    only what make would do, since these are the tests themselves

The text is not changed for that. The environment puts ports and data elsewhere: curl is told by its own
settings to go to other ports, Todoku by `TODOKU_…`, and make not to install anything.
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
}
LOOK_AGAIN_SECONDS = 0.1

BLOCK = re.compile(
    r"(?:^<!-- (?P<manner>[^>]+) -->\n)?"
    r"^```sh\n(?P<code>.*?)^```\n"
    r"(?:\n^```text\n(?P<printed>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


class Block(msgspec.Struct, frozen=True):
    """Commands, how they are run, and what they print, as far as that is shown."""

    manner: str | None
    code: str
    printed: str | None

    def is_printed(self, output: str) -> bool:
        """Whether that is what the page shows; an output that is not shown may be anything."""
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


def _is_set_for_us(name: str) -> bool:
    """Whether a variable says how these tests run: to a make inside a make, or to todoku."""
    return name.startswith(("TODOKU_", "MAKE", "MFLAGS"))


class Reader:
    """Somebody who does what the page says, in terminals of their own."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self._ports = dict(zip(PORTS.values(), ports, strict=True))
        (folder / ".curlrc").write_text(
            "".join(
                f'connect-to = "127.0.0.1:{usual}:127.0.0.1:{port}"\n'
                for usual, port in self._ports.items()
            )
        )
        self._environment = {
            **{name: value for name, value in os.environ.items() if not _is_set_for_us(name)},
            **{name: str(self._ports[usual]) for name, usual in PORTS.items()},
            "TODOKU_DATA_DIR": str(folder / "data"),
            "TODOKU_CARRIER_DELAY_SECONDS": "0",
            "TODOKU_CARRIER_SUCCESS_RATE": "1",
            "CURL_HOME": str(folder),
            # What `make install` has set up is what runs these tests.
            "MAKEFLAGS": "INSTALLED=",
            "NO_COLOR": "1",
        }
        self._background = ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._background.close()

    def do(self, block: Block) -> None:
        match block.manner:
            case None:
                self._run(block)
            case "keeps running":
                self._background.close()
                self._background.enter_context(self._running(block))
            case "again until it prints this":
                self._ask(block)
            case "dry run":
                subprocess.run(
                    [*block.code.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True
                )
            case unknown:
                raise AssertionError(f"there is no {unknown!r}")

    def _run(self, block: Block) -> None:
        output = self._output(block)
        assert block.is_printed(output), output

    def _ask(self, block: Block) -> None:
        patience_ends = time.monotonic() + BOUND_SECONDS
        while not block.is_printed(output := self._output(block)):
            assert time.monotonic() < patience_ends, output
            time.sleep(LOOK_AGAIN_SECONDS)

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
        return self._as_usual(ran.stdout)

    def _as_usual(self, output: str) -> str:
        """What would have been printed with the usual ports."""
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
        heard = CapturedOutput(process.stdout)
        try:
            heard.until("Place an order:")
            said, _, _ = "\n".join(heard.lines).partition("Place an order:")
            assert block.is_printed(self._as_usual(said)), said
            yield
        finally:
            # As Ctrl-C in the terminal, which is for make as well.
            os.killpg(process.pid, signal.SIGINT)
            heard.until_end()
            process.wait(BOUND_SECONDS)
            process.stdout.close()
        assert "stopped" in heard.lines


def test_every_block_does_what_the_page_says(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    with Reader(tmp_path, free_ports(len(PORTS))) as reader:
        for block in blocks_of(READMES[0]):
            reader.do(block)


def test_both_languages_show_the_same_commands_and_the_same_answers() -> None:
    """So what is run for one is run for the other."""
    english, japanese = map(blocks_of, READMES)
    assert english == japanese


def test_the_tests_run_where_the_readme_installs() -> None:
    """Else the blocks would run another Todoku than the one under test."""
    assert Path(sys.prefix) == ROOT / ".venv"
