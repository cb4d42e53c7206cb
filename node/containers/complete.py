"""From what the user asked and what the image says to a whole CreateSpec, refused here where it could not start.

Pure: no file, no clock. Messages are Docker's.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from node.containers import usermode
from node.containers.bundle import resources
from node.containers.bundle.config import check_sysctls
from node.containers.bundle.mounts import tmpfs_options
from node.containers.bundle.process import check_ulimits, command, merge_env
from node.containers.bundle.security import confine
from node.containers.errors import InvalidSpec
from node.containers.files import HOST_GATEWAY
from node.containers.links import parse as parse_link
from node.containers.model import CreateSpec, Healthcheck, Namespaces, Port, RestartMode, RestartPolicy
from node.containers.mountspec import check_target
from node.network.model import BUILTIN, EndpointSpec
from node.network.options import check_address, check_mac
from ocispec.errors import InvalidArgument

MAX_HOSTNAME = 64
MODES: Mapping[str, frozenset[str]] = {
    "pid": frozenset({"", "private", "host"}),
    "ipc": frozenset({"", "private", "host", "none", "shareable"}),
    "uts": frozenset({"", "private", "host"}),
    "cgroup": frozenset({"", "private", "host"}),
}
JOIN = "container:"
JOINABLE = ("pid", "ipc")


@dataclass(frozen=True, slots=True)
class Completed:
    spec: CreateSpec
    path: str
    args: tuple[str, ...]


def complete(spec: CreateSpec, image: Mapping[str, Any], container_id: str) -> Completed:
    """`image`: the `config` object of its configuration. Raises InvalidSpec, Unimplemented."""
    for entry in spec.env:
        if not entry or entry.startswith("="):
            raise InvalidSpec(f"invalid environment variable: {entry[:300]}")
    entrypoint, cmd = command(spec.entrypoint, spec.cmd, image)
    words = (*entrypoint, *cmd)
    if not words or not words[0]:
        raise InvalidSpec("no command specified")
    whole = replace(
        spec,
        entrypoint=entrypoint,
        cmd=cmd,
        env=merge_env(_texts(image.get("Env")), spec.env),
        workdir=_workdir(spec.workdir or _text(image, "WorkingDir")),
        user=spec.user or _text(image, "User"),
        labels={**_images_own(_labels(image.get("Labels"))), **spec.labels},
        exposed_ports=tuple(dict.fromkeys((*_ports(image.get("ExposedPorts")), *spec.exposed_ports))),
        volumes=tuple(dict.fromkeys((*_volumes(image.get("Volumes")), *map(check_target, spec.volumes)))),
        stop_signal=spec.stop_signal or _text(image, "StopSignal") or "SIGTERM",
        hostname=_hostname(spec, container_id),
        healthcheck=_healthcheck(spec.healthcheck, image.get("Healthcheck")),
        shell=spec.shell or _texts(image.get("Shell")),
    )
    check(whole)
    return Completed(whole, words[0], words[1:])


def check(spec: CreateSpec) -> None:
    """All that can be known to fail before the first start. Raises InvalidSpec, Unimplemented."""
    if any("\0" in word for word in (*(spec.entrypoint or ()), *(spec.cmd or ()), *spec.env, spec.workdir)):
        raise InvalidSpec("a command, environment or working directory cannot hold a NUL")
    parse_signal(spec.stop_signal)
    resources.check(spec.resources)
    check_ulimits(spec.resources.ulimits)
    if confine(spec.security).writable_cgroups and spec.namespaces.cgroup == "host":
        raise InvalidSpec('security option "writable-cgroups": the container shares the host\'s cgroup namespace: it '
                          "would change the host's groups")
    for target, options in spec.tmpfs.items():
        check_target(target)
        tmpfs_options(options.split(","))
    check_sysctls(
        spec.resources.sysctls,
        host_network=spec.network.mode == "host",
        host_ipc=spec.namespaces.ipc == "host",
    )
    _check_namespaces(spec.namespaces)
    _check_network(spec)
    _check_rest(spec)


def _check_namespaces(namespaces: Namespaces) -> None:
    for kind, allowed in MODES.items():
        mode = getattr(namespaces, kind)
        if mode in allowed or (kind in JOINABLE and mode.startswith(JOIN) and len(mode) > len(JOIN)):
            continue
        raise InvalidSpec(f"invalid {kind.upper()} mode: {mode}")
    usermode.parse(namespaces.user)


def _check_network(spec: CreateSpec) -> None:
    network, mode = spec.network, spec.network.mode
    shares = mode.startswith("container:")
    if mode == "container:":
        raise InvalidSpec("Invalid network mode: invalid container format container:<name|id>")
    for entry in network.extra_hosts:
        _check_extra_host(entry)
    if shares and (network.bindings or network.publish_all):
        raise InvalidSpec("conflicting options: port publishing and the container type network mode")
    if shares and (network.dns or network.extra_hosts):
        raise InvalidSpec(
            "conflicting options: dns and the network mode"
            if network.dns
            else "conflicting options: custom host-to-IP mapping and the network mode"
        )
    if network.links and (shares or mode == "host"):
        kind = "host type networking" if mode == "host" else "container type network"
        raise InvalidSpec(f"conflicting options: {kind} can't be used with links. This would result in undefined "
                          "behavior")
    for link in network.links:
        parse_link(link)
    for end in network.endpoints:
        _check_endpoint(end, shares=shares)


def _check_extra_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not colon or not name or any(letter.isspace() for letter in entry):
        raise InvalidSpec(f'bad format for add-host: "{entry[:300]}"')
    if address == HOST_GATEWAY:
        return
    try:
        ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise InvalidSpec(f'invalid IP address in add-host: "{address[:300]}"') from error


def _check_endpoint(end: EndpointSpec, *, shares: bool) -> None:
    """What a network that does not exist yet would refuse too."""
    invalid = f"invalid config for network {end.network}: invalid endpoint settings:\n"
    if end.network in BUILTIN or shares:
        if end.ipv4 or end.ipv6:
            raise InvalidSpec(f"{invalid}user specified IP address is supported on user defined networks only")
        if end.aliases:
            raise InvalidSpec(
                f"{invalid}network-scoped alias is supported only for containers in user defined networks"
            )
    if end.mac:
        check_mac(end.mac)
    if end.ipv4:
        check_address(end.ipv4, 4)
    if end.ipv6:
        check_address(end.ipv6, 6)


def _check_rest(spec: CreateSpec) -> None:
    if spec.auto_remove and spec.restart.mode is not RestartMode.NO:
        raise InvalidSpec("can't create 'AutoRemove' container with restart policy")
    check_restart(spec.restart)
    if spec.stop_timeout is not None and spec.stop_timeout < -1:
        raise InvalidSpec(f"invalid stop timeout: {spec.stop_timeout}")
    if spec.healthcheck is not None:
        _check_health(spec.healthcheck)


def check_restart(policy: RestartPolicy) -> None:
    """Raises InvalidSpec."""
    if policy.max_retries < 0:
        raise InvalidSpec("invalid restart policy: maximum retry count cannot be negative")
    if policy.max_retries and policy.mode is not RestartMode.ON_FAILURE:
        raise InvalidSpec("invalid restart policy: maximum retry count can only be used with 'on-failure'")


def _check_health(check: Healthcheck) -> None:
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidSpec(f'Unknown type "{check.test[0]}" in healthcheck (try CMD)')
    names = ("interval", "timeout", "start_period", "start_interval")
    for name in names:
        if 0 < getattr(check, name) < 1_000_000 or getattr(check, name) < 0:
            raise InvalidSpec(
                f"{name.replace('_', ' ').title().replace(' ', '')} in Healthcheck cannot be less than 1ms"
            )
    if check.retries < 0:
        raise InvalidSpec("Retries in Healthcheck cannot be negative")


def parse_signal(text: str) -> int:
    """A number or a name with or without SIG. Raises InvalidSpec."""
    bare = text.strip().upper()
    if bare.isascii() and bare.isdigit() and 0 < int(bare[:4]) < 65:
        return int(bare)
    name = bare if bare.startswith("SIG") else f"SIG{bare}"
    offset, base = 0, name
    for plus in ("RTMIN+", "RTMAX-"):
        if name.startswith(f"SIG{plus}") and name[3 + len(plus) :].isdigit():
            base, offset = f"SIG{plus[:-1]}", int(plus[-1] + name[3 + len(plus) :])
    try:
        number = signal.Signals[base].value + offset
    except KeyError:
        number = 0
    if not 0 < number < 65:
        raise InvalidSpec(f"invalid signal: {text}")
    return number


def _hostname(spec: CreateSpec, container_id: str) -> str:
    for kind, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if len(name.encode(errors="surrogateescape")) > MAX_HOSTNAME or set(name) & set("\0\n"):
            raise InvalidSpec(f"invalid {kind} {name[:80]!r}: it must be one line of at most {MAX_HOSTNAME} bytes")
    if spec.namespaces.uts == "host" or spec.network.mode == "host":
        if spec.hostname and spec.namespaces.uts == "host":
            raise InvalidSpec("conflicting options: hostname and the UTS mode")
        return spec.hostname or os.uname().nodename
    if spec.network.mode.startswith("container:") and spec.hostname:
        raise InvalidSpec("conflicting options: hostname and the network mode")
    return spec.hostname or container_id[:12]


def _workdir(path: str) -> str:
    if not path:
        return "/"
    if not path.startswith("/"):
        raise InvalidSpec(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    return os.path.normpath(path).replace("//", "/")


def _healthcheck(asked: Healthcheck | None, image: Any) -> Healthcheck | None:
    """Field by field, as Docker merges them: what the user left at zero is the image's."""
    base = _image_healthcheck(image)
    if asked is None or base is None:
        return asked or base
    if asked.test[:1] == ("NONE",):
        return asked
    return Healthcheck(
        asked.test or base.test,
        asked.interval or base.interval,
        asked.timeout or base.timeout,
        asked.start_period or base.start_period,
        asked.start_interval or base.start_interval,
        asked.retries or base.retries,
    )


def _image_healthcheck(value: Any) -> Healthcheck | None:
    if not isinstance(value, dict) or not _texts(value.get("Test")):
        return None

    def number(name: str) -> int:
        held = value.get(name)
        return held if isinstance(held, int) and not isinstance(held, bool) and held > 0 else 0

    return Healthcheck(
        _texts(value.get("Test")),
        number("Interval"),
        number("Timeout"),
        number("StartPeriod"),
        number("StartInterval"),
        number("Retries"),
    )


def _ports(value: Any) -> list[Port]:
    """An image's ExposedPorts; what is no port is left out, it binds nothing."""
    ports = []
    for key in value if isinstance(value, dict) else ():
        number, _, protocol = str(key).partition("/")
        if number.isascii() and number.isdigit() and 0 < int(number[:6]) < 65536:
            ports.append(Port(int(number), (protocol or "tcp").lower()))
    return [port for port in ports if port.protocol in ("tcp", "udp", "sctp")]


def _volumes(value: Any) -> list[str]:
    try:
        return [check_target(str(path)) for path in (value if isinstance(value, dict) else ())]
    except InvalidArgument as error:
        raise InvalidSpec(f"the image declares a volume that cannot be: {error.message}") from error


def _images_own(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of ours ask the node for things, or say whose a container is (`seawall.project`, which gives that project
    every right on it): who runs an image has not said so. How it is restarted is its maker's to say."""
    return {name: value for name, value in labels.items()
            if not name.startswith("seawall.") or name == "seawall.restart-unhealthy"}


def _labels(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _text(image: Mapping[str, Any], key: str) -> str:
    value = image.get(key)
    return value if isinstance(value, str) else ""
