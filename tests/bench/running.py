"""Runs `todoku bench` and its instruments to the end."""

import subprocess
import sys
from pathlib import Path


def bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, "-m", "todoku", "bench", *arguments)


def profile(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, str(Path(__file__).with_name("measure.py")), *arguments)


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
