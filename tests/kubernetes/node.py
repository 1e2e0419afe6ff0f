"""The node of the cluster: control plane, kubelet and names, in the network namespace in which this runs."""

import json
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

from kubernetes.images import NATS, PAUSE, POSTGRES
from kubernetes.processes import LOOK_SECONDS, docker, docker_daemon, process, unmount, until

SERVICES: Final = "10.96.0.0/16"
PODS: Final = "172.17.0.0/16"
BRIDGE: Final = "172.17.0.1"
API: Final = "https://127.0.0.1:6443"
DOMAIN: Final = "cluster.local"
NODE: Final = "node"


class Node:
    """The processes of the cluster. Everything that `start` begins is ended by `started`."""

    def __init__(self, folder: Path, programs: Path, started: ExitStack) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._folder = folder
        self._state = folder / "state"
        self._programs = programs
        self._started = started
        self._token = secrets.token_hex(16)
        self._unverified = ssl.create_default_context()
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def start(self) -> None:
        """Start everything on empty data, and wait until the node is ready."""
        shutil.rmtree(self._state, ignore_errors=True)
        self._state.mkdir()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self._started.enter_context(docker_daemon(self._folder, f"--bip={BRIDGE}/16"))
        subprocess.run(["ip", "route", "add", SERVICES, "dev", "docker0"], check=True)
        self._write_credentials()
        self._run("etcd", "etcd", f"--data-dir={self._state / 'etcd'}")
        self._start_control_plane()
        self._start_kubelet()
        until(self._is_ready, "the node is not ready", self._folder)

    def serve_names(self) -> NoReturn:
        """Answer for the names of services and of their pods, as they change."""
        hosts = self._folder / "hosts"
        hosts.write_text("")
        dns = self._run(
            "dnsmasq",
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root"),
            *(f"--addn-hosts={hosts}", f"--listen-address={BRIDGE}", "--bind-interfaces"),
            *(f"--local=/{DOMAIN}/", "--pid-file", "--log-facility=-"),
        )
        known = ""
        while True:
            with suppress(OSError, HTTPException):
                names = "".join(f"{address} {name}\n" for address, name in self._names())
                if names != known:
                    hosts.write_text(names)
                    dns.send_signal(signal.SIGHUP)
                    known = names
            time.sleep(LOOK_SECONDS)

    def _start_control_plane(self) -> None:
        key = self._folder / "service-account.key"
        self._run(
            "apiserver",
            str(self._programs / "kube-apiserver"),
            *("--etcd-servers=http://127.0.0.1:2379", "--insecure-port=0", "--secure-port=6443"),
            *(f"--cert-dir={self._state / 'apiserver'}", f"--advertise-address={BRIDGE}"),
            *(f"--token-auth-file={self._folder / 'tokens.csv'}", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            *(f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true"),
            "--kubelet-preferred-address-types=InternalIP",
        )
        until(self._answers, "the API server is not ready", self._folder)
        own = [
            f"--{purpose}kubeconfig={self.kubeconfig}"
            for purpose in ("", "authentication-", "authorization-")
        ]
        self._run(
            "controller-manager",
            *(str(self._programs / "kube-controller-manager"), *own, "--leader-elect=false"),
            f"--service-account-private-key-file={key}",
        )
        self._run("scheduler", str(self._programs / "kube-scheduler"), *own, "--leader-elect=false")

    def _start_kubelet(self) -> None:
        root = self._state / "kubelet"
        self._started.callback(unmount, root)  # The kubelet mounts it on itself.
        self._started.callback(_remove_containers, self._folder)
        config = f"--kubeconfig={self.kubeconfig}"
        self._run(
            "kubelet",
            *(str(self._programs / "kubelet"), config, f"--root-dir={root}"),
            f"--cert-dir={root / 'pki'}",
            *("--container-runtime=docker", f"--docker-endpoint={docker(self._folder)[-1]}"),
            *("--cgroup-driver=cgroupfs", "--cgroups-per-qos=false", "--enforce-node-allocatable="),
            *("--fail-swap-on=false", f"--pod-infra-container-image={PAUSE}"),
            *("--eviction-hard=", "--image-gc-high-threshold=100"),
            *(f"--hostname-override={NODE}", f"--node-ip={BRIDGE}", "--resolv-conf="),
            *(f"--cluster-dns={BRIDGE}", f"--cluster-domain={DOMAIN}"),
            *("--authorization-mode=AlwaysAllow", "--anonymous-auth=true"),
        )
        self._run(
            "proxy",
            *(str(self._programs / "kube-proxy"), config, f"--hostname-override={NODE}"),
            *("--proxy-mode=iptables", f"--cluster-cidr={PODS}", "--conntrack-max-per-core=0"),
            *("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"),
        )

    def _write_credentials(self) -> None:
        tokens = self._folder / "tokens.csv"
        key = self._folder / "service-account.key"
        tokens.touch(0o600)
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        cluster = {"server": API, "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": NODE,
            "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": NODE}}],
            "clusters": [{"name": NODE, "cluster": cluster}],
            "users": [{"name": NODE, "user": {"token": self._token}}],
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(config))

    def _names(self) -> Iterator[tuple[str, str]]:
        for service in self._get("/api/v1/services")["items"]:
            if service["spec"].get("clusterIP") not in (None, "None"):
                yield service["spec"]["clusterIP"], _name(service)
        for endpoints in self._get("/api/v1/endpoints")["items"]:
            for subset in endpoints.get("subsets", ()):
                for address in (
                    *subset.get("addresses", ()),
                    *subset.get("notReadyAddresses", ()),
                ):
                    if "hostname" in address:
                        yield address["ip"], f"{address['hostname']}.{_name(endpoints)}"

    def _answers(self) -> bool:
        with suppress(OSError, HTTPException):
            return bool(self._get("/api/v1/namespaces/default"))
        return False

    def _is_ready(self) -> bool:
        return any(
            (condition["type"], condition["status"]) == ("Ready", "True")
            for node in self._get("/api/v1/nodes")["items"]
            for condition in node["status"].get("conditions", ())
        )

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(
            API + path, headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=5, context=self._unverified) as response:
            return json.load(response)

    def _run(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        return self._started.enter_context(process(self._folder, name, *command))


def main(folder: Path, programs: Path, namespace: str) -> None:
    """Run the node until SIGTERM or SIGINT, and take the network namespace away."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with ExitStack() as started, suppress(KeyboardInterrupt):
        started.callback(subprocess.run, ["ip", "netns", "delete", namespace], check=False)
        node = Node(folder, programs, started)
        node.start()
        print(
            "ready; in another terminal, as root:\n"
            f"  nsenter --net=/run/netns/{namespace} env KUBECONFIG={node.kubeconfig} \\\n"
            f'    make test-kubernetes ARGS="--nats-image {NATS} --postgres-image {POSTGRES}"',
            flush=True,
        )
        node.serve_names()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _name(resource: Any) -> str:
    metadata = resource["metadata"]
    return f"{metadata['name']}.{metadata['namespace']}.svc.{DOMAIN}"


def _remove_containers(folder: Path) -> None:
    command = [*docker(folder), "ps", "--all", "--quiet"]
    found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    if found:
        removal = [*docker(folder), "rm", "--force", "--volumes", *found]
        subprocess.run(removal, check=False, capture_output=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
