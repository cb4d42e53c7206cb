"""`docker version` and `docker info`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.api.version import ApiVersion

Json = dict[str, Any]

GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Product:
    version: str
    api: str
    oldest_api: str
    kernel: str
    machine: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The host; `memory` in bytes, `now` RFC 3339."""

    name: str
    kernel: str
    architecture: str
    system: str
    cpus: int
    memory: int
    now: str
    forwards: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    version: str
    driver: str
    cgroup_version: str
    cgroup_driver: str
    root: str
    insecure_registries: Sequence[str]
    limits: frozenset[str]
    mirrors: Mapping[str, Sequence[str]]
    log_driver: str
    plugins: Mapping[str, Sequence[str]]
    init: str
    isolation: str = "seawall"
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """Paths by name."""

    default_runtime: str = "seawall"
    security: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What the daemon has open; `tasks` are what Docker's goroutines are to it."""

    files: int
    tasks: int
    listeners: int


# Docker's names of what a host can limit, by ours; and the kinds whose absence it warns of, in its words.
_ABILITIES = {
    "MemoryLimit": "memory", "SwapLimit": "swap", "CpuCfsPeriod": "cpu_quota", "CpuCfsQuota": "cpu_quota",
    "CPUShares": "cpu_shares", "CPUSet": "cpuset", "PidsLimit": "pids", "OomKillDisable": "oom_control",
    "KernelMemoryTCP": "kernel_tcp",
}
_MISSED = {
    "memory": "No memory limit support", "swap": "No swap limit support", "cpu_quota": "No cpu cfs quota support",
    "cpu_shares": "No cpu shares support", "cpuset": "No cpuset support",
    "blkio_throttle": "No blkio throttle.read_bps_device support",
}
EVERY_LIMIT = frozenset({*_ABILITIES.values(), *_MISSED})
FIREWALL, BRIDGE_FILTERS_GONE = ApiVersion(1, 49), ApiVersion(1, 50)


def version(product: Product, *, python: str) -> Json:
    architecture = GO_NAMES.get(product.machine, product.machine)
    details = {
        "ApiVersion": product.api,
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        # The docker command prints a line for the Go of the server; ours is Python's, and says so.
        "GoVersion": f"python{python}",
        "KernelVersion": product.kernel,
        "MinAPIVersion": product.oldest_api,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Seawall"},
        "Components": [{"Name": "Engine", "Version": product.version, "Details": details}],
        "Version": product.version,
        "ApiVersion": product.api,
        "MinAPIVersion": product.oldest_api,
        "GitCommit": "",
        "GoVersion": f"python{python}",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": product.kernel,
        "BuildTime": "",
    }


def info(node: Node, machine: Machine, counts: Mapping[str, int], *, images: int) -> Json:
    running, paused, stopped = (counts.get(name, 0) for name in ("running", "paused", "stopped"))
    return {
        "ID": node.id,
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": images,
        "Driver": node.driver,
        "Plugins": {**node.plugins, "Authorization": None},
        **_abilities(node.limits),
        "IPv4Forwarding": machine.forwards,
        # Docker's word for a rootless engine without a delegated cgroup.
        "CgroupDriver": node.cgroup_driver if node.limits else "none",
        "CgroupVersion": node.cgroup_version,
        "Debug": False,
        "SystemTime": machine.now,
        "LoggingDriver": node.log_driver,
        "KernelVersion": machine.kernel,
        "OperatingSystem": machine.system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": machine.architecture,
        "NCPU": machine.cpus,
        "MemTotal": machine.memory,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(node.insecure_registries, node.mirrors),
        "GenericResources": None,
        "DockerRootDir": node.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": machine.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": node.version,
        "Runtimes": {name: {"path": path} for name, path in node.runtimes.items()},
        "DefaultRuntime": node.default_runtime,
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
                  "RemoteManagers": None},
        # Containers outlive the daemon by design: what Docker offers as an option is the only way here.
        "LiveRestoreEnabled": True,
        "Isolation": node.isolation,
        "InitBinary": node.init,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": list(node.security),
        "ProductLicense": "",
        "Warnings": _warnings(node.limits, forwards=machine.forwards) or None,
    }


def work(value: Work, *, backing: str) -> Json:
    return {
        "DriverStatus": [["Backing Filesystem", backing]],
        "NEventsListener": value.listeners,
        "NFd": value.files,
        "NGoroutines": value.tasks,
    }


def by_version(version: ApiVersion) -> Json:
    document: Json = {"FirewallBackend": {"Driver": "nftables"}} if version >= FIREWALL else {}
    if version < BRIDGE_FILTERS_GONE:
        # The rules are in tables of the inet and ip families: bridged frames do not pass through iptables for them.
        document |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return document


def _warnings(limits: frozenset[str], *, forwards: bool) -> list[str]:
    missed = [f"WARNING: {text}" for limit, text in _MISSED.items() if limit not in limits]
    return missed if forwards else [*missed, "WARNING: IPv4 forwarding is disabled"]


def _abilities(limits: frozenset[str]) -> Json:
    return {name: limit in limits for name, limit in _ABILITIES.items()} | {"KernelMemory": False}


def _registries(insecure: Sequence[str], mirrors: Mapping[str, Sequence[str]]) -> Json:
    named = {host: False for host in insecure if "/" not in host} | {host: host not in insecure for host in mirrors}
    configs = {
        host: {"Name": host, "Mirrors": list(mirrors.get(host, ())), "Secure": secure, "Official": host == "docker.io"}
        for host, secure in {"docker.io": True, **named}.items()
    }
    return {
        "AllowNondistributableArtifactsCIDRs": None,
        "AllowNondistributableArtifactsHostnames": None,
        "InsecureRegistryCIDRs": ["127.0.0.0/8", *(host for host in insecure if "/" in host)],
        "IndexConfigs": configs,
        "Mirrors": list(mirrors.get("docker.io", ())) or None,
    }
