"""A balancer before replicas, and the last release for them."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from todoku.lab.replica import Replica

ROOT = Path(__file__).parents[2]
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def source_of_the_last_release(folder: Path) -> dict[str, str]:
    """Unpack the last release, and return the environment in which Python imports it."""
    listed = tomllib.loads((ROOT / "tests/distribution/releases.toml").read_text())
    packed = folder / "release.tar"
    commit = listed["release"][0]["commit"]
    subprocess.run(["git", "archive", "-o", str(packed), commit, "src"], cwd=ROOT, check=True)
    shutil.unpack_archive(packed, folder / "release", filter="data")
    return {"PYTHONPATH": str(folder / "release" / "src")}


@contextmanager
def balancer(
    folder: Path, ports: Mapping[str, int], replicas: Mapping[str, list[Replica]]
) -> Iterator[None]:
    """Run HAProxy with a port for each service, before all of its replicas."""
    config = folder / "haproxy.cfg"
    parts = [_shipped_defaults()]
    for name, those in replicas.items():
        parts.append(f"listen {name}\n  bind 127.0.0.1:{ports[name]}\n")
        parts += [f"  server {name}{n} 127.0.0.1:{each.port}\n" for n, each in enumerate(those)]
    config.write_text("".join(parts))
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen([str(HAPROXY), "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _shipped_defaults() -> str:
    """Return the defaults of `deploy/haproxy.cfg`, without what only Docker has."""
    shipped = (ROOT / "deploy" / "haproxy.cfg").read_text()
    found = re.search(r"^defaults\n.*?(?=^\S)", shipped, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0].replace("  log global\n", "").replace(" resolvers docker init-addr none", "")
