"""A container as `docker inspect` and `docker ps` read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.api.types.endpoints import endpoints
from node.api.types.hostview import host_config
from node.api.types.units import epoch, human_span
from node.api.version import NEWEST, ApiVersion
from node.containers import logdrivers
from node.containers.bundle.security import capabilities_of, profile_of
from node.containers.model import Container, ContainerState, Health, MountPoint, Port, PublishedPort, Status
from node.network.model import Endpoint

Json = dict[str, Any]


PLAIN_NETWORKS = ApiVersion(1, 52)
"""From here on what a container has on `bridge` is said in its Networks alone, and a list says how it feels."""

MAC_IN_CONFIG = ApiVersion(1, 44)
ID_IN_ALIASES = ApiVersion(1, 45)
"""Until here a container's short id was among its aliases; since then it is among its DNSNames."""

_LEGACY_NETWORK = ("Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
                   "SecondaryIPv6Addresses", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen",
                   "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress")  # fmt: skip


def inspect(
    container: Container, *, driver: str, sizes: tuple[int, int] | None = None, version: ApiVersion = NEWEST
) -> Json:
    """`driver` names the snapshotter; `sizes` are the bytes of the writable layer and of the whole root."""
    folder = container.directory
    document: Json = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": list(container.args),
        "State": state(container.state),
        "Image": container.image_id,
        "ResolvConfPath": f"{folder}/resolv.conf",
        "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts",
        "LogPath": logdrivers.shown_path(container),
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": profile_of(container.spec.security),
        **_capabilities(container),
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": host_config(container.spec, version),
        "GraphDriver": {"Data": None, "Name": driver},
        "Mounts": [mount(item) for item in container.mounts if item.target not in container.spec.tmpfs],
        "Config": config(container),
        "NetworkSettings": network_settings(container, short_id=version < ID_IN_ALIASES),
    }
    if version < MAC_IN_CONFIG and (mac := container.network.primary.mac):
        document["Config"]["MacAddress"] = mac
    if version >= PLAIN_NETWORKS:
        for name in _LEGACY_NETWORK:
            del document["NetworkSettings"][name]
    if sizes:
        document["SizeRw"], document["SizeRootFs"] = sizes
    return document


def _capabilities(container: Container) -> Json:
    """Podman's fields: what the first process holds, and what it could get. Whose ids are whose in the image is not
    looked up: a name that is not root's is taken for somebody else's."""
    name = container.spec.user.partition(":")[0]
    bounding, ambient = capabilities_of(container.spec.security)
    return {"EffectiveCaps": list(bounding if name in ("", "0", "root") else ambient), "BoundingCaps": list(bounding)}


def state(value: ContainerState) -> Json:
    document: Json = {
        "Status": value.status.value,
        "Running": value.running or value.status is Status.RESTARTING,
        "Paused": value.status is Status.PAUSED,
        "Restarting": value.status is Status.RESTARTING,
        "OOMKilled": value.oom_killed,
        "Dead": value.status is Status.DEAD,
        "Pid": value.pid if value.running else 0,
        "ExitCode": value.exit_code,
        "Error": value.error,
        "StartedAt": value.started_at,
        "FinishedAt": value.finished_at,
    }
    if value.health:
        document["Health"] = health(value.health)
    return document


def health(value: Health) -> Json:
    return {
        "Status": value.status,
        "FailingStreak": value.failing_streak,
        "Log": [
            {"Start": item.start, "End": item.end, "ExitCode": item.exit_code, "Output": item.output}
            for item in value.log
        ],
    }


def config(container: Container) -> Json:
    spec = container.spec
    document: Json = {
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": spec.attach_stdin,
        "AttachStdout": spec.attach_stdout,
        "AttachStderr": spec.attach_stderr,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": list(spec.env),
        "Cmd": None if spec.cmd is None else list(spec.cmd),
        "Image": spec.image,
        "Volumes": {path: {} for path in spec.volumes} or None,
        "WorkingDir": spec.workdir if spec.workdir != "/" else "",
        "Entrypoint": list(spec.entrypoint) if spec.entrypoint else None,
        "OnBuild": None,
        "Labels": dict(spec.labels),
    }
    if spec.exposed_ports:
        document["ExposedPorts"] = {str(port): {} for port in spec.exposed_ports}
    if spec.stop_signal and spec.stop_signal != "SIGTERM":
        document["StopSignal"] = spec.stop_signal
    if spec.stop_timeout is not None:
        document["StopTimeout"] = spec.stop_timeout
    if check := spec.healthcheck:
        values = {
            "Test": list(check.test), "Interval": check.interval, "Timeout": check.timeout,
            "StartPeriod": check.start_period, "StartInterval": check.start_interval, "Retries": check.retries,
        }  # fmt: skip
        document["Healthcheck"] = {name: value for name, value in values.items() if value}
    return document


def mount(value: MountPoint) -> Json:
    document: Json = {"Type": value.kind}
    if value.name:
        document["Name"] = value.name
    document |= {"Source": value.source, "Destination": value.target}
    if value.kind == "volume":
        document["Driver"] = "local"
    return document | {"Mode": value.mode, "RW": not value.read_only, "Propagation": value.propagation}


def network_settings(container: Container, *, short_id: bool = False) -> Json:
    # The first level is from before there were networks, and of the default one alone.
    place = next((end for end in container.network.endpoints if end.network_name == "bridge"), Endpoint())
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": ports(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": place.endpoint_id,
        "Gateway": place.gateway,
        "GlobalIPv6Address": place.ip6,
        "GlobalIPv6PrefixLen": place.prefix6,
        "IPAddress": place.ip,
        "IPPrefixLen": place.prefix,
        "IPv6Gateway": place.gateway6,
        "MacAddress": place.mac,
        "Networks": endpoints(container, short_id=short_id),
    }


def ports(container: Container) -> Json:
    """Of a running container: every exposed port, with where the host answers for it (null: nowhere)."""
    if not container.state.running:
        return {}
    table: dict[str, list[Json] | None] = {str(port): None for port in container.spec.exposed_ports}
    for published in container.network.ports:
        binding = {"HostIp": published.host_ip, "HostPort": str(published.host_port)}
        table[str(published.port)] = [*(table.get(str(published.port)) or []), binding]
    return table


def summary(
    container: Container,
    *,
    now: float,
    sizes: tuple[int, int] | None = None,
    image: str = "",
    version: ApiVersion = NEWEST,
) -> Json:
    """A line of `docker ps`. `image` replaces the name it was made from when that names another image now."""
    document: Json = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": image or container.image,
        "ImageID": container.image_id,
        "Command": command(container.path, container.args),
        "Created": epoch(container.created),
        "Ports": _port_list(container.spec.exposed_ports, container.network.ports) if container.state.running else [],
        "Labels": dict(container.spec.labels),
        "State": container.state.status.value,
        "Status": status_text(container.state, now),
        "HostConfig": {"NetworkMode": container.spec.network.mode},
        "NetworkSettings": {"Networks": endpoints(container)},
        "Mounts": [mount(item) for item in container.mounts if item.target not in container.spec.tmpfs],
    }
    if version >= PLAIN_NETWORKS and (feels := container.state.health):
        document["Health"] = {"Status": feels.status, "FailingStreak": feels.failing_streak}
    if container.spec.annotations:
        document["HostConfig"]["Annotations"] = dict(container.spec.annotations)
    if sizes:
        document["SizeRw"], document["SizeRootFs"] = sizes
    return document


def command(path: str, args: Sequence[str]) -> str:
    return " ".join([path, *(f"'{word}'" if " " in word else word for word in args)])


def _port_list(exposed: Sequence[Port], published: Sequence[PublishedPort]) -> list[Json]:
    taken = {item.port for item in published}
    lines: list[Json] = [
        {
            "IP": item.host_ip,
            "PrivatePort": item.port.number,
            "PublicPort": item.host_port,
            "Type": item.port.protocol,
        }
        for item in published
    ]
    return lines + [{"PrivatePort": port.number, "Type": port.protocol} for port in exposed if port not in taken]


def status_text(value: ContainerState, now: float) -> str:
    """Docker's Status column. `now` in seconds since the epoch."""
    if value.status is Status.RESTARTING:
        return f"Restarting ({value.exit_code}) {human_span(now - epoch(value.finished_at))} ago"
    if value.running:
        up = f"Up {human_span(now - epoch(value.started_at))}"
        if value.status is Status.PAUSED:
            return f"{up} (Paused)"
        if value.health and value.health.status != "none":
            shown = value.health.status
            return f"{up} ({'health: starting' if shown == 'starting' else shown})"
        return up
    fixed: Mapping[Status, str] = {
        Status.REMOVING: "Removal In Progress", Status.DEAD: "Dead", Status.CREATED: "Created",
    }  # fmt: skip
    if value.status in fixed:
        return fixed[value.status]
    return f"Exited ({value.exit_code}) {human_span(now - epoch(value.finished_at))} ago"
