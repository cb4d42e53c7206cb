"""`POST /containers/create`: the body into a CreateSpec. Every field is honoured, refused, or the client's own affair.

Not looked at: ContainerIDFile (the client writes it), OnBuild and Shell of an image's own config (they mean something
to a build only), Consistency of a mount (it names caching on macOS).
"""

from dataclasses import replace

from node.api.types.endpoints import parse_endpoints
from node.api.types.fields import Fields
from node.api.types.hostconfig import (
    container_port,
    parse_log,
    parse_namespaces,
    parse_network,
    parse_restart,
    parse_security,
)
from node.api.types.limits import parse_limits
from node.api.types.mounts import parse_mounts
from node.api.version import NEWEST, ApiVersion
from node.containers.model import CreateSpec, ExecSpec, Healthcheck
from ocispec.errors import InvalidArgument

_REFUSED = ("ArgsEscaped",)


def parse_create(
    body: Fields, *, name: str, platform: str, several: bool = True, version: ApiVersion = NEWEST
) -> CreateSpec:
    """`several`: networks at create, since API 1.44. Raises InvalidArgument (400) or Unimplemented (501), naming the
    field."""
    host = body.object("HostConfig")
    body.refuse(_REFUSED)
    if not body.text("Image"):
        raise InvalidArgument("no image specified: Image must name one")
    network = parse_network(host, body.text("MacAddress"))
    if body.flag("NetworkDisabled"):
        network = replace(network, mode="none")
    network = parse_endpoints(body.object("NetworkingConfig"), network, several=several)
    return CreateSpec(
        image=body.text("Image"),
        name=name,
        platform=platform,
        cmd=body.words("Cmd"),
        entrypoint=body.words("Entrypoint"),
        env=body.texts("Env"),
        workdir=body.text("WorkingDir"),
        user=body.text("User"),
        hostname=body.text("Hostname"),
        domainname=body.text("Domainname"),
        tty=body.flag("Tty"),
        open_stdin=body.flag("OpenStdin"),
        stdin_once=body.flag("StdinOnce"),
        attach_stdin=body.flag("AttachStdin"),
        attach_stdout=body.flag("AttachStdout"),
        attach_stderr=body.flag("AttachStderr"),
        labels=body.mapping("Labels"),
        exposed_ports=tuple(container_port(key) for key in body.keys("ExposedPorts")),
        volumes=body.keys("Volumes"),
        stop_signal=body.text("StopSignal"),
        stop_timeout=body.optional_number("StopTimeout"),
        healthcheck=_healthcheck(body),
        mounts=parse_mounts(host, version, body.mapping("Labels")),
        volume_driver=host.text("VolumeDriver"),
        tmpfs=host.mapping("Tmpfs"),
        volumes_from=host.texts("VolumesFrom"),
        resources=parse_limits(host),
        security=parse_security(host),
        namespaces=parse_namespaces(host),
        network=network,
        log=parse_log(host.object("LogConfig")),
        restart=parse_restart(host.object("RestartPolicy")),
        auto_remove=host.flag("AutoRemove"),
        init=host.flag("Init"),
        cgroup_parent=host.text("CgroupParent"),
        runtime=host.text("Runtime"),
        annotations=host.mapping("Annotations"),
        console_size=console_size(host),
    )


def parse_exec(body: Fields) -> ExecSpec:
    """`POST /containers/{id}/exec`."""
    cmd = body.words("Cmd") or ()
    if not cmd:
        raise InvalidArgument("No exec command specified")
    return ExecSpec(
        cmd=cmd,
        env=body.texts("Env"),
        user=body.text("User"),
        workdir=body.text("WorkingDir"),
        tty=body.flag("Tty"),
        privileged=body.flag("Privileged"),
        attach_stdin=body.flag("AttachStdin"),
        attach_stdout=body.flag("AttachStdout"),
        attach_stderr=body.flag("AttachStderr"),
        detach_keys=body.text("DetachKeys"),
        console_size=console_size(body),
    )


def _healthcheck(body: Fields) -> Healthcheck | None:
    if not body.has("Healthcheck"):
        return None
    check = body.object("Healthcheck")
    return Healthcheck(
        check.texts("Test"),
        check.number("Interval"),
        check.number("Timeout"),
        check.number("StartPeriod"),
        check.number("StartInterval"),
        check.number("Retries"),
    )


def console_size(host: Fields) -> tuple[int, int]:
    """Height and width."""
    value = host.raw("ConsoleSize")
    if value is None:
        return 0, 0
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 0 <= n < 65536 for n in value):
        raise host.wrong("ConsoleSize", "two numbers, height and width", value)
    return value[0], value[1]
