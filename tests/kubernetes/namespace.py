"""A namespace of a cluster, by kubectl."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Final

READY_SECONDS_MAX: Final = 600
POLICY_V1_SINCE: Final = 22
"""The minor version of Kubernetes since which evictions are asked for by policy/v1."""


class Cluster:
    """A namespace of the cluster."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def kubectl(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace, and return its output."""
        command = ["kubectl", "--namespace", self.namespace, *words]
        return output(command, text=text, check=check)

    def apply(self, file: Path, **names: str) -> None:
        """Create what a file describes."""
        self.kubectl("apply", "--filename=-", text=Template(file.read_text()).substitute(names))

    def make_secret(self, name: str, **content: str) -> None:
        """Create a secret."""
        self._make("Secret", name, data={k: _base64(v) for k, v in content.items()})

    def make_files(self, name: str, **content: str) -> None:
        """Create a ConfigMap."""
        self._make("ConfigMap", name, data=content)

    def wait_for(self, *resources: str) -> None:
        """Wait until all pods of deployments or stateful sets are new and ready."""
        for resource in resources:
            self.kubectl("rollout", "status", resource, f"--timeout={READY_SECONDS_MAX}s")

    def pods(self, component: str) -> list[str]:
        """Return the names of the pods of a service that run."""
        selector = f"--selector=app.kubernetes.io/component={component}"
        running = "--field-selector=status.phase=Running"
        return self.kubectl("get", "pods", selector, running, "--output=name").split()

    def evict(self, pod: str) -> bool:
        """Ask for the eviction of a pod, as a node that is drained does; return whether it is permitted."""
        name = pod.partition("/")[2]
        server = json.loads(self.kubectl("version", "--output=json"))["serverVersion"]
        recent = int(server["minor"].rstrip("+")) >= POLICY_V1_SINCE
        eviction = {
            "apiVersion": "policy/v1" if recent else "policy/v1beta1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self.namespace},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction"
        answer = self.kubectl(
            "create", "--raw", path, "--filename=-", text=json.dumps(eviction), check=False
        )
        return "Success" in answer

    def phase(self, pod: str) -> str:
        """Return the phase of a pod."""
        return self.kubectl("get", f"pod/{pod}", "--output=jsonpath={.status.phase}")

    def durables(self) -> set[str]:
        """Return the names of the durables at NATS."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/nats-0:8222/proxy/jsz?consumers=true"
        return set(re.findall(r'"name": "([^"]+)"', self.kubectl("get", "--raw", path)))

    def _make(self, kind: str, name: str, **content: object) -> None:
        described = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}
        self.kubectl("create", "--filename=-", text=json.dumps(described))


def until(look: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so. Raises `TimeoutError` with the complaint."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {READY_SECONDS_MAX} s")
        time.sleep(1.0)


def output(command: list[str], *, text: str | None = None, check: bool = True) -> str:
    """Run a command, and return what it prints. Ends the program with its error if it fails."""
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr.strip()}")
    return done.stdout


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
