"""Install the chart on a cluster, disturb it under load, and check that nothing is lost.

In a namespace of its own: NATS (three servers) and PostgreSQL as plain pods, three of each service, and
customers in a pod, who repeat with its Idempotency-Key what got no answer. Every deployment is restarted,
scaled, upgraded and divided into partitions, and pods are deleted by force and evicted. Then each order has
to exist once and to have ended, and `todoku verify --strict --never-restored` to find nothing.

make test-kubernetes ARGS="--image registry.example/todoku:0.3.0"
"""

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from kubernetes.images import todoku_image
from kubernetes.namespace import READY_SECONDS_MAX, Cluster, output, until
from todoku.broker.partitions import partitions_of
from todoku.lab.stack import TODOKU
from todoku.system import system

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
RELEASE: Final = "shop"
REPLICAS, MORE, FEWER = 3, 5, 2
SERVERS: Final = [f"nats-{number}.nats" for number in range(3)]
CALM_ORDERS: Final = 100
"""How many orders are accepted before and after each disturbance."""

GAP_SECONDS_MAX: Final = 10.0
REPEATABLE: Final = ("connection ", "503", "502", "409 request-in-progress")
"""What a client may see besides an accepted order: after any of these it sends the request again."""


class Load:
    """The customers' pod, by its log."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def lines(self) -> list[Any]:
        """Return all lines that it has written."""
        log = self._cluster.kubectl("logs", "load", "--tail=-1", check=False)
        return [json.loads(line) for line in log.splitlines() if line.startswith("{")]

    def seconds(self) -> list[Any]:
        """Return the lines of its seconds."""
        return [line for line in self.lines() if "second" in line]

    def until_accepted(self, more: int) -> None:
        """Wait until that many more orders have been accepted."""
        goal = self.accepted() + more
        until(lambda: self.accepted() >= goal, f"fewer than {more} orders were accepted")

    def accepted(self) -> int:
        """Return how many orders have been accepted."""
        seconds = self.seconds()
        return seconds[-1]["accepted"] if seconds else 0

    def result(self) -> Any:
        """End the load, and return what it has found."""
        self._cluster.kubectl("exec", "load", "--", "touch", "/data/stop")
        until(lambda: self._cluster.phase("load") != "Running", "the customers have not ended")
        lines = self.lines()
        if not lines or "result" not in lines[-1]:
            raise SystemExit("the customers failed: " + self._cluster.kubectl("logs", "load"))
        return lines[-1]["result"]


def main() -> int:
    """Run the proof; return 1 if anything is wrong, 2 if something needed is missing."""
    options = ArgumentParser(description="Prove the chart on a cluster that KUBECONFIG names.")
    options.add_argument("--image", default=todoku_image(), help="of this source: NAME:TAG")
    options.add_argument("--nats-image", default="nats:2.12-alpine")
    options.add_argument("--postgres-image", default="postgres:17")
    options.add_argument("--rate", type=float, default=60.0, help="orders a second")
    options.add_argument("--customers", type=int, default=16)
    options.add_argument("--only", default="", metavar="WORD", help="in the names of disturbances")
    options.add_argument("--keep", action="store_true", help="leave the namespace as it is")
    chosen = options.parse_args()
    if complaint := _missing():
        print(f"make test-kubernetes: {complaint}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    cluster = Cluster(f"todoku-test-{secrets.token_hex(3)}")
    print(f"namespace {cluster.namespace}", flush=True)
    output(["kubectl", "create", "namespace", cluster.namespace])
    try:
        return prove(cluster, chosen)
    except BaseException:
        keep_logs(cluster)
        raise
    finally:
        if not chosen.keep:
            output(["kubectl", "delete", "namespace", cluster.namespace])


def prove(cluster: Cluster, chosen: Namespace) -> int:
    """Install everything, disturb it step by step, and judge."""
    output(["kubectl", "label", "namespace", cluster.namespace, *_RESTRICTED])
    began = time.monotonic()
    install_dependencies(cluster, chosen)
    print(f"NATS and PostgreSQL ready after {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    helm(cluster, "install", chosen.image)
    deployments = [f"deployment/{RELEASE}-{name}" for name in (*system.names, "console")]
    cluster.wait_for(*deployments)
    print(f"the chart's pods ready after {time.monotonic() - began:.0f} s", flush=True)
    cluster.make_files("load", **{"load.py": (HERE / "load.py").read_text()})
    pods = {"image": chosen.image, "release": RELEASE, "rate": str(chosen.rate)}
    load_pod, verify_pod = (HERE / "pods.yaml").read_text().split("---\n")
    fill = pods | {"customers": str(chosen.customers)}
    cluster.kubectl("create", "--filename=-", text=Template(load_pod).substitute(fill))
    load = Load(cluster)
    until(lambda: load.accepted() > 0, "no order is accepted")
    problems: list[str] = []
    for name, disturb in disturbances(cluster, chosen.image, problems):
        if chosen.only in name:
            with step(name, load, problems):
                disturb()
    result = load.result()
    cluster.kubectl("create", "--filename=-", text=Template(verify_pod).substitute(fill))
    until(lambda: cluster.phase("verify") in ("Succeeded", "Failed"), "verify has not ended")
    print(cluster.kubectl("logs", "verify"), end="")
    if cluster.phase("verify") != "Succeeded":
        problems.append("todoku verify has found something")
    problems += judge(result)
    print(json.dumps(result, indent=1))
    for problem in problems:
        print(f"PROBLEM {problem}")
    print(f"{len(problems)} problems")
    if problems:
        keep_logs(cluster)
    return 1 if problems else 0


def install_dependencies(cluster: Cluster, chosen: Namespace) -> None:
    """Start NATS, with a key for each service, and PostgreSQL, with a database for each; make the secrets."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = [f"--node={server}" for server in SERVERS]
        output([*TODOKU, "broker-config", folder, *nodes])
        configs = {path.name: path.read_text() for path in Path(folder).glob("*.conf")}
        seeds = {path.name: path.read_text() for path in Path(folder).glob("credentials/*.nk")}
    password = secrets.token_hex(16)
    cluster.make_secret("nats-config", **configs)
    cluster.make_secret("nats-seeds", **seeds)
    cluster.make_secret("postgres-password", password=password)
    for name in system.names:
        url = f"postgresql://todoku:{password}@postgres/{name}"
        cluster.make_secret(f"todoku-{name}-database", url=url)
    key = f"tdk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    cluster.make_secret("todoku-bootstrap-key", key=key)
    images = {"nats_image": chosen.nats_image, "postgres_image": chosen.postgres_image}
    cluster.apply(HERE / "dependencies.yaml", **images)
    cluster.wait_for("statefulset/nats", "statefulset/postgres")


def helm(cluster: Cluster, command: str, image: str, **values: object) -> None:
    """Install or upgrade the chart of this source."""
    repository, _, tag = image.rpartition(":")
    replicas = {name: {"replicas": REPLICAS} for name in system.names}
    merged = {
        "image": {"repository": repository, "tag": tag},
        "nats": {
            "url": ",".join(f"nats://{server}:4222" for server in SERVERS),
            "seeds": {"existingSecret": "nats-seeds"},
        },
        "services": replicas,
        # So little that five of each fit on a node of two cores.
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
        **values,
    }
    chart = str(ROOT / "deploy" / "helm" / "todoku")
    words = ["helm", command, RELEASE, chart, f"--namespace={cluster.namespace}", "--values=-"]
    output([*words, f"--timeout={READY_SECONDS_MAX}s"], text=json.dumps(merged))


def disturbances(
    cluster: Cluster, image: str, problems: list[str]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what happens to the system, with a name."""
    deployments = {name: f"deployment/{RELEASE}-{name}" for name in (*system.names, "console")}

    def restart(*names: str) -> None:
        cluster.kubectl("rollout", "restart", *(deployments[name] for name in names))
        cluster.wait_for(*(deployments[name] for name in names))

    def scale(number: int) -> None:
        for name in system.names:
            cluster.kubectl("scale", deployments[name], f"--replicas={number}")
        cluster.wait_for(*(deployments[name] for name in system.names))
        for name in system.names:
            until(lambda name=name: len(cluster.pods(name)) == number, f"{name} is not scaled")

    def delete(name: str) -> None:
        cluster.kubectl("delete", cluster.pods(name)[0], "--grace-period=0", "--force")
        cluster.wait_for(deployments[name])

    def evict(name: str) -> None:
        first, second, *_ = cluster.pods(name)
        if not cluster.evict(first):
            problems.append(f"no pod of {name} may be evicted")
        if cluster.evict(second):
            problems.append(f"two pods of {name} were evicted at once")
        cluster.wait_for(deployments[name])

    def upgrade(**values: object) -> None:
        helm(cluster, "upgrade", image, migrationJob={"enabled": True}, **values)
        cluster.wait_for(*deployments.values())

    def divide() -> None:
        upgrade(partitions=REPLICAS)
        wanted = {each.durable for name in system.names for each in partitions_of(name, REPLICAS)}
        until(lambda: wanted <= cluster.durables(), "the partitions are not read")

    for name in deployments:
        yield f"rollout restart of {name}", lambda name=name: restart(name)
    yield "rollout restart of all at once", lambda: restart(*deployments)
    yield f"scale of each from {REPLICAS} to {MORE}", lambda: scale(MORE)
    yield f"scale of each from {MORE} to {FEWER}", lambda: scale(FEWER)
    for name in system.names:
        yield f"a pod of {name} deleted by force", lambda name=name: delete(name)
    yield "helm upgrade with a migration job", lambda: upgrade(podLabels={"upgrade": "1"})
    yield f"helm upgrade to {REPLICAS} partitions", divide
    for name in system.names:
        yield f"two pods of {name} evicted, one permitted", lambda name=name: evict(name)


@contextmanager
def step(name: str, load: Load, problems: list[str]) -> Iterator[None]:
    """Do something to the system while orders are placed, before and after it too."""
    load.until_accepted(CALM_ORDERS)
    before = load.seconds()
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    load.until_accepted(CALM_ORDERS)
    seconds = load.seconds()
    gap = max(line["gap"] for line in seconds[len(before) :])
    if gap > GAP_SECONDS_MAX:
        problems.append(f"no order was accepted for {gap} s: {name}")
    errors = Counter(seconds[-1]["errors"])
    errors.subtract(before[-1]["errors"])
    seen = ", ".join(f"{count} × {kind}" for kind, count in errors.items() if count)
    print(
        f"{load.accepted():>7,} accepted: {name}, {took:.0f} s, longest gap {gap} s; {seen or 'no errors'}",
        flush=True,
    )


def judge(result: Any) -> list[str]:
    """Return what is wrong in what the customers have found."""
    problems = [
        f"{result[kind]} orders {told}"
        for kind, told in {
            "lost": "were accepted and do not exist",
            "beyond": "exist that nobody placed, or twice",
            "shared": "were the answer to two requests",
            "not_ended": "have not ended",
        }.items()
        if result[kind]
    ]
    problems += [f"a client saw {answer}" for answer in result["wrong"]]
    problems += [
        f"a client saw {count} times: {kind}"
        for kind, count in result["errors"].items()
        if not kind.startswith(REPEATABLE)
    ]
    return problems


def keep_logs(cluster: Cluster) -> None:
    """Save what the pods have logged, and what happened to them."""
    folder = Path(tempfile.mkdtemp(prefix="todoku-kubernetes-"))
    for pod in cluster.kubectl("get", "pods", "--output=name", check=False).split():
        log = cluster.kubectl("logs", pod, "--tail=-1", check=False)
        (folder / f"{pod.partition('/')[2]}.log").write_text(log)
    for kind in ("events", "pods"):
        (folder / kind).write_text(cluster.kubectl("get", kind, "--output=wide", check=False))
    print(f"what the pods logged: {folder}", file=sys.stderr)


def _missing() -> str | None:
    """Return what is missing, and what to do."""
    if missing := [program for program in ("kubectl", "helm") if shutil.which(program) is None]:
        where = "https://kubernetes.io/docs/tasks/tools and https://helm.sh/docs/intro/install"
        return f"install {' and '.join(missing)}: {where}"
    answer = subprocess.run(
        ["kubectl", "get", "nodes", "--request-timeout=10s"],
        check=False,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        return (
            "no cluster answers; set KUBECONFIG to that of one, or run make kubernetes-cluster\n"
            + answer.stderr.strip()
        )
    return None


_RESTRICTED: Final = ["pod-security.kubernetes.io/enforce=restricted"]


if __name__ == "__main__":
    sys.exit(main())
