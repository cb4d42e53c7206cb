"""HostConfig as inspect shows it: all of Docker's fields, so that a client that reads one never meets a hole."""

from collections.abc import Sequence
from typing import Any

from node.api.types.limits import limits_view
from node.api.types.mounts import mount_view
from node.api.version import NEWEST, ApiVersion
from node.containers.bundle.security import MASKED, READONLY, thermal_throttles
from node.containers.model import CreateSpec, PublishedPort, Security

Json = dict[str, Any]


def host_config(spec: CreateSpec, version: ApiVersion = NEWEST) -> Json:
    return {
        "Binds": [item.bind_text() for item in spec.mounts if item.from_bind] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": spec.log.driver, "Config": dict(spec.log.options)},
        "NetworkMode": spec.network.mode,
        "PortBindings": port_bindings(spec.network.bindings),
        "RestartPolicy": {"Name": spec.restart.mode.value, "MaximumRetryCount": spec.restart.max_retries},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": spec.volume_driver,
        "VolumesFrom": list(spec.volumes_from) or None,
        "ConsoleSize": list(spec.console_size),
        **({"Annotations": dict(spec.annotations)} if spec.annotations else {}),
        **_security(spec),
        **_network(spec),
        "CgroupParent": spec.cgroup_parent,
        **limits_view(spec.resources, version),
        **({"Mounts": [mount_view(item) for item in spec.mounts if not item.from_bind]} if _has_mounts(spec) else {}),
        **({"Tmpfs": dict(spec.tmpfs)} if spec.tmpfs else {}),
    }


def port_bindings(bindings: Sequence[PublishedPort]) -> Json:
    table: dict[str, list[Json]] = {}
    for item in bindings:
        last = f"-{item.host_port_end}" if item.host_port_end else ""
        host_port = f"{item.host_port}{last}" if item.host_port else ""
        table.setdefault(str(item.port), []).append({"HostIp": item.host_ip, "HostPort": host_port})
    return table


def _has_mounts(spec: CreateSpec) -> bool:
    return any(not item.from_bind for item in spec.mounts)


def _security(spec: CreateSpec) -> Json:
    security, namespaces = spec.security, spec.namespaces
    document: Json = {
        "CapAdd": list(security.cap_add) or None,
        "CapDrop": list(security.cap_drop) or None,
        "CgroupnsMode": namespaces.cgroup or "private",
        "GroupAdd": list(security.group_add) or None,
        "IpcMode": namespaces.ipc or "private",
        "Cgroup": "",
        "Links": [_link(link, spec.name) for link in spec.network.links] or None,
        "PidMode": namespaces.pid,
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.read_only_rootfs,
        "SecurityOpt": list(security.security_opt) or None,
        "UTSMode": namespaces.uts,
        "UsernsMode": namespaces.user,
        "MaskedPaths": _paths(security, security.masked_paths, (*MASKED, *thermal_throttles())),
        "ReadonlyPaths": _paths(security, security.readonly_paths, READONLY),
        "Runtime": spec.runtime or "seawall",
        "Isolation": security.isolation,
    }
    if spec.init:
        document["Init"] = True
    return document


def _paths(security: Security, asked: Sequence[str] | None, default: Sequence[str]) -> list[str] | None:
    """What Docker makes of nothing said: its list, or none at all for a privileged container."""
    if asked is not None:
        return list(asked)
    return None if security.privileged else list(default)


def _network(spec: CreateSpec) -> Json:
    network = spec.network
    return {
        "Dns": list(network.dns),
        "DnsOptions": list(network.dns_options),
        "DnsSearch": list(network.dns_search),
        "ExtraHosts": list(network.extra_hosts) or None,
        "PublishAllPorts": network.publish_all,
    }


def _link(text: str, own: str) -> str:
    """/other:/own/alias, as the client shows it."""
    name, _, alias = text.partition(":")
    return f"/{name.lstrip('/')}:/{own}/{alias.rpartition('/')[2] or name.lstrip('/')}"
