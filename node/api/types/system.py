"""`docker version` and `docker info`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    version: str
    driver: str
    cgroup_version: str
    root: str
    insecure_registries: Sequence[str]
    warnings: Sequence[str]


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
        "DriverStatus": [],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "none"],
        },
        **_abilities(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": node.cgroup_version,
        "NEventsListener": 0,
        "NFd": 0,
        "NGoroutines": 0,
        "Debug": False,
        "SystemTime": machine.now,
        "LoggingDriver": "json-file",
        "KernelVersion": machine.kernel,
        "OperatingSystem": machine.system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": machine.architecture,
        "NCPU": machine.cpus,
        "MemTotal": machine.memory,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(node.insecure_registries),
        "GenericResources": None,
        "DockerRootDir": node.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": machine.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": node.version,
        "Runtimes": {"seawall": {"path": "seawall-runtime"}},
        "DefaultRuntime": "seawall",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
                  "RemoteManagers": None},
        # Containers outlive the daemon by design: what Docker offers as an option is the only way here.
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "ProductLicense": "",
        "Warnings": list(node.warnings) or None,
    }


def _abilities() -> Json:
    names = ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit",
             "IPv4Forwarding", "OomKillDisable")
    return dict.fromkeys(names, True) | {
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "KernelMemory": False,
        "KernelMemoryTCP": False,
    }


def _registries(insecure: Sequence[str]) -> Json:
    configs = {
        host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
        for host in insecure if "/" not in host
    }
    return {
        "AllowNondistributableArtifactsCIDRs": None,
        "AllowNondistributableArtifactsHostnames": None,
        "InsecureRegistryCIDRs": ["127.0.0.0/8", *(host for host in insecure if "/" in host)],
        "IndexConfigs": configs,
        "Mirrors": None,
    }
