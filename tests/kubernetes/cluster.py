"""Build a Kubernetes cluster of one node from Debian's packages, and run it until it is interrupted.

For a machine that reaches no registry of images. It runs in a network namespace of its own, with Docker; it
has names (DNS), but enforces no network policy. With root, on Debian 12.

make kubernetes-cluster ARGS="--folder /var/tmp/todoku-kubernetes"
"""

import os
import platform
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from kubernetes.images import build_images, build_programs
from kubernetes.processes import docker, docker_daemon

NEEDED: Final = {
    "dockerd": "docker.io",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "etcd": "etcd-server",
    "dnsmasq": "dnsmasq-base",
    "debootstrap": "debootstrap",
    "dpkg-source": "dpkg-dev",
    "rsync": "rsync",
    "make": "make",
    "openssl": "openssl",
}
"""Programs, and Debian's packages that have them."""

NO_NETWORK: Final = (
    *("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
)
"""A daemon that builds images changes nothing in the machine's network."""


def main() -> None:
    """Build what is missing, then go on as the node, in a network namespace."""
    options = ArgumentParser(description="Build and run a Kubernetes cluster of one node.")
    options.add_argument("--folder", type=Path, default=Path("/var/tmp/todoku-kubernetes"))
    options.add_argument("--namespace", default="todoku-kubernetes", help="of the network")
    chosen = options.parse_args()
    _require()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    programs = build_programs(folder)
    with docker_daemon(folder, *NO_NETWORK):
        build_images(folder, docker(folder))
    subprocess.run(["ip", "netns", "add", chosen.namespace], check=True)
    sys.stdout.flush()
    node = str(Path(__file__).with_name("node.py"))
    inside = ["nsenter", f"--net=/run/netns/{chosen.namespace}"]
    command = [*inside, sys.executable, node, str(folder), str(programs), chosen.namespace]
    os.execvp(command[0], command)


def _require() -> None:
    """End the program with exit code 2 if something is missing that it needs."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if os.geteuid() != 0 or platform.machine() != "x86_64" or missing:
        print("make kubernetes-cluster needs root, and Debian on amd64.", file=sys.stderr)
        if missing:
            print("Install: apt-get install " + " ".join(missing), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
