"""The parts of HostConfig: limits, security, namespaces, network, mounts, log, restart policy."""

from collections.abc import Iterator

from node.api.types.fields import Fields, InvalidField
from node.containers import logdrivers
from node.containers.bundle.baseline import baseline
from node.containers.model import (
    LogSpec,
    Namespaces,
    NetworkSpec,
    Port,
    PublishedPort,
    RestartMode,
    RestartPolicy,
    Security,
)
from ocispec.errors import InvalidArgument

_BINDING_ERROR = 'invalid port specification: "{}"'


def parse_security(host: Fields) -> Security:
    return Security(
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        privileged=host.flag("Privileged"),
        security_opt=host.texts("SecurityOpt"),
        read_only_rootfs=host.flag("ReadonlyRootfs"),
        group_add=host.texts("GroupAdd"),
        masked_paths=host.optional_texts("MaskedPaths"),
        readonly_paths=host.optional_texts("ReadonlyPaths"),
        isolation=_isolation(host),
    )


def _isolation(host: Fields) -> str:
    """Of Windows in Docker's API; here, whose defaults hold."""
    name = host.text("Isolation").lower()
    return baseline("" if name == "default" else name).name


def parse_namespaces(host: Fields) -> Namespaces:
    return Namespaces(
        pid=host.text("PidMode"),
        ipc=host.text("IpcMode"),
        uts=host.text("UTSMode"),
        cgroup=host.text("CgroupnsMode"),
        user=host.text("UsernsMode"),
    )


def parse_network(host: Fields, mac_address: str) -> NetworkSpec:
    return NetworkSpec(
        mode=host.text("NetworkMode") or "default",
        bindings=tuple(parse_bindings(host)),
        publish_all=host.flag("PublishAllPorts"),
        dns=host.texts("Dns"),
        dns_options=host.texts("DnsOptions"),
        dns_search=host.texts("DnsSearch"),
        extra_hosts=host.texts("ExtraHosts"),
        mac_address=mac_address,
        links=host.texts("Links"),
    )


def parse_bindings(host: Fields) -> Iterator[PublishedPort]:
    """Of PortBindings."""
    value = host.raw("PortBindings")
    if value is None:
        return
    if not isinstance(value, dict):
        raise host.wrong("PortBindings", "an object", value)
    ports = Fields(value, host.name("PortBindings"))
    for key in value:
        port = container_port(key)
        # null or an empty list publishes on any free port, as `-p 80` does.
        for binding in ports.objects(key) or [Fields({}, ports.name(key))]:
            yield PublishedPort(port, binding.text("HostIp"), *_host_ports(binding.text("HostPort")))


def container_port(text: str) -> Port:
    """`80`, `80/udp`. Raises InvalidField."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if not number.isascii() or not number.isdigit() or not 0 < int(number[:6]) < 65536:
        raise InvalidField(_BINDING_ERROR.format(text[:50]))
    if slash and protocol not in ("tcp", "udp", "sctp"):
        raise InvalidField(_BINDING_ERROR.format(text[:50]))
    return Port(int(number), protocol)


def _host_ports(text: str) -> tuple[int, int]:
    """A port, or the first and the last of a range, of which one is chosen; 0, 0 is any."""
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else -1
               for part in (first or "0", last if dash else "0")]
    if not all(0 <= number < 65536 for number in numbers) or (dash and not 0 < numbers[0] <= numbers[1]):
        raise InvalidField(_BINDING_ERROR.format(text[:50]))
    return numbers[0], numbers[1]


def parse_log(log: Fields) -> LogSpec:
    """Type "" is the node's default driver, which is found when the container is made."""
    spec = LogSpec(log.text("Type"), log.mapping("Config"))
    if spec.driver:
        logdrivers.check(spec)
    return spec


def parse_restart(policy: Fields) -> RestartPolicy:
    name = policy.text("Name") or "no"
    if name not in set(RestartMode):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name[:50]}'; use one of 'no', 'always', 'on-failure', "
            "or 'unless-stopped'"
        )
    return RestartPolicy(RestartMode(name), policy.number("MaximumRetryCount"))
