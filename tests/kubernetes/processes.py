"""Processes of the cluster: started with a log, ended in turn."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.5
START_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 30.0

_RUNTIME = """#!/usr/bin/python3
# Docker gives some containers a negative oom_score_adj, for which a machine may lack the right.
import json, os, sys
for before, word in zip(sys.argv, sys.argv[1:]):
    if before == "--bundle":
        with open(word + "/config.json") as file:
            config = json.load(file)
        if (config.get("process", {}).get("oomScoreAdj") or 0) < 0:
            config["process"]["oomScoreAdj"] = 0
            with open(word + "/config.json", "w") as file:
                json.dump(config, file)
os.execvp("runc", ["runc", *sys.argv[1:]])
"""


def docker(folder: Path) -> list[str]:
    """Return the command that talks to the daemon of this folder."""
    return ["docker", "--host", f"unix://{folder / 'docker.sock'}"]


@contextmanager
def docker_daemon(folder: Path, *arguments: str) -> Iterator[None]:
    """Run Docker with its data in this folder."""
    runtime = folder / "runtime"
    runtime.write_text(_RUNTIME)
    runtime.chmod(0o755)
    command = [
        *("dockerd", f"--host=unix://{folder / 'docker.sock'}", f"--data-root={folder / 'docker'}"),
        *(f"--exec-root={folder / 'docker-run'}", f"--pidfile={folder / 'docker.pid'}"),
        *(f"--add-runtime=todoku={runtime}", "--default-runtime=todoku", *arguments),
    ]
    try:
        with process(folder, "dockerd", *command):
            until(lambda: _answers([*docker(folder), "version"]), "Docker does not answer", folder)
            yield
    finally:
        unmount(folder / "docker-run")  # It leaves the network namespaces of builds there.


@contextmanager
def process(folder: Path, name: str, *command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process that logs into this folder, and end it."""
    log = folder / "log" / name
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def unmount(folder: Path) -> None:
    """Unmount what is mounted in a folder, or on it."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if f"{each}/".startswith(f"{folder}/")]):
        subprocess.run(["umount", mount], check=False)


def until(look: Callable[[], bool], complaint: str, folder: Path) -> None:
    """Wait until something is so. Ends the program with the complaint."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{complaint}: read {folder / 'log'}")
        time.sleep(LOOK_SECONDS)


def _answers(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
