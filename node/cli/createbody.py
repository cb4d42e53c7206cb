"""The flags of `run` and `create`: declared here, turned into the body of `POST /containers/create`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from node.cli import options as parse
from node.cli.mounts import mount
from node.cli.networking import network_options, networking

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(click.ParamType[int]):
    """A number that is written for people. Defaults are parsed too, so they are texts."""

    def __init__(self, name: str, parse_text: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse_text

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else self._parse(value)


SIZE, SPAN, CPUS = Parsed("bytes", parse.size), Parsed("duration", parse.span), Parsed("decimal", parse.cpus)


def _many(*names: str, metavar: str, help: str) -> Callable[[F], F]:  # noqa: A002
    return click.option(*names, multiple=True, metavar=metavar, help=help)


def _text(*names: str, metavar: str, help: str) -> Callable[[F], F]:  # noqa: A002
    return click.option(*names, metavar=metavar, help=help)


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    _many("--add-host", metavar="NAME:IP", help="A line of /etc/hosts."),
    _many("--annotation", metavar="KEY=VALUE", help="Passed to the runtime."),
    _many("-a", "--attach", metavar="STREAM", help="Attach only stdin, stdout or stderr."),
    click.option("--blkio-weight", type=int, default=0, help="Share of block IO, 10 to 1000."),
    _many("--blkio-weight-device", metavar="DEVICE:WEIGHT", help="The same for one device."),
    _many("--cap-add", metavar="CAPABILITY", help="Add a capability."),
    _many("--cap-drop", metavar="CAPABILITY", help="Drop a capability."),
    _text("--cgroup-parent", metavar="PATH", help="Parent cgroup."),
    _text("--cgroupns", metavar="MODE", help="Cgroup namespace: host or private."),
    _text("--cidfile", metavar="FILE", help="Write the container's id there."),
    click.option("--cpu-count", type=int, default=0, help="Of Windows containers: refused."),
    click.option("--cpu-percent", type=int, default=0, help="Of Windows containers: refused."),
    click.option("--cpu-period", type=int, default=0, help="CFS period in microseconds."),
    click.option("--cpu-rt-period", type=int, default=0, help="Real-time period in microseconds."),
    click.option("--cpu-rt-runtime", type=int, default=0, help="Real-time runtime in microseconds."),
    click.option("--cpu-quota", type=int, default=0, help="CFS quota in microseconds."),
    click.option("-c", "--cpu-shares", type=int, default=0, help="Relative CPU weight."),
    click.option("--cpus", type=CPUS, default="0", metavar="N", help="How many CPUs at most: 1.5"),
    _text("--cpuset-cpus", metavar="LIST", help="Which CPUs: 0-2,4"),
    _text("--cpuset-mems", metavar="LIST", help="Which memory nodes."),
    _text("--detach-keys", metavar="KEYS", help="Instead of ctrl-p,ctrl-q."),
    _many("--device", metavar="HOST[:CONTAINER[:rwm]]", help="Add a device."),
    _many("--device-cgroup-rule", metavar="RULE", help="Allow a class of devices: 'c 1:3 rwm'"),
    _many("--device-read-bps", metavar="DEVICE:RATE", help="Bytes a second read from a device: /dev/sda:1mb"),
    _many("--device-read-iops", metavar="DEVICE:RATE", help="Reads a second from a device."),
    _many("--device-write-bps", metavar="DEVICE:RATE", help="Bytes a second written to a device."),
    _many("--device-write-iops", metavar="DEVICE:RATE", help="Writes a second to a device."),
    click.option("--disable-content-trust/--no-disable-content-trust", default=True,
                 help="Images are not checked for signatures: only the default is served."),
    _many("--dns", metavar="IP", help="A DNS server."),
    _many("--dns-option", "--dns-opt", metavar="OPTION", help="A DNS option."),
    _many("--dns-search", metavar="DOMAIN", help="A DNS search domain."),
    _text("--domainname", metavar="NAME", help="NIS domain name."),
    _text("--entrypoint", metavar="PROGRAM", help="Instead of the image's."),
    _many("-e", "--env", metavar="NAME[=VALUE]", help="An environment variable."),
    _many("--env-file", metavar="FILE", help="Environment variables, a line each."),
    _many("--expose", metavar="PORT[/PROTOCOL]", help="A port that the container answers on."),
    _text("--gpus", metavar="REQUEST", help="GPUs: refused, there is no driver for them."),
    _many("--group-add", metavar="GROUP", help="A further group of the process."),
    _text("--health-cmd", metavar="COMMAND", help="A command that says whether the container is well."),
    click.option("--health-interval", type=SPAN, default="0s", metavar="TIME", help="Between two checks."),
    click.option("--health-retries", type=int, default=0, help="Failures until it is unhealthy."),
    click.option("--health-start-interval", type=SPAN, default="0s", metavar="TIME", help="While it starts."),
    click.option("--health-start-period", type=SPAN, default="0s", metavar="TIME", help="Failures do not count."),
    click.option("--health-timeout", type=SPAN, default="0s", metavar="TIME", help="Of one check."),
    _text("-h", "--hostname", metavar="NAME", help="The container's host name."),
    click.option("--init", is_flag=True, help="An init that forwards signals and reaps processes."),
    click.option("-i", "--interactive", is_flag=True, help="Keep standard input open."),
    click.option("--io-maxbandwidth", type=SIZE, default="0", metavar="BYTES", help="Of Windows containers: refused."),
    click.option("--io-maxiops", type=int, default=0, help="Of Windows containers: refused."),
    _text("--isolation", metavar="NAME", help="Whose defaults hold: seawall or docker. [default: the node's]"),
    _text("--ipc", metavar="MODE", help="IPC namespace."),
    _many("-l", "--label", metavar="KEY=VALUE", help="Metadata."),
    _many("--label-file", metavar="FILE", help="Metadata, a line each."),
    _text("--log-driver", metavar="DRIVER", help="json-file or none."),
    _many("--log-opt", metavar="NAME=VALUE", help="Of the log driver: max-size, max-file."),
    click.option("--kernel-memory", type=SIZE, default="0", metavar="BYTES", help="No kernel of today limits it."),
    click.option("-m", "--memory", type=SIZE, default="0", metavar="BYTES", help="Memory limit: 512m"),
    click.option("--memory-reservation", type=SIZE, default="0", metavar="BYTES", help="Soft limit."),
    click.option("--memory-swap", type=SIZE, default="0", metavar="BYTES", help="Memory and swap; -1: no limit."),
    click.option("--memory-swappiness", type=int, default=-1, help="0 to 100."),
    _many("--mount", metavar="MOUNT",
          help="type=bind|volume|tmpfs|image|secret|config,source=…,target=…[,readonly][,…] (docs/volumes.md)"),
    _text("--name", metavar="NAME", help="The container's name."),
    *network_options(_many, _text),
    click.option("--no-healthcheck", is_flag=True, help="None, whatever the image says."),
    click.option("--oom-kill-disable", is_flag=True, help="No OOM killer."),
    click.option("--oom-score-adj", type=int, default=0, help="-1000 to 1000."),
    _text("--pid", metavar="MODE", help="PID namespace: host or container:NAME."),
    click.option("--pids-limit", type=int, default=0, help="How many processes at most; -1: no limit."),
    _text("--platform", metavar="OS/ARCH", help="Of an image for several platforms."),
    click.option("--privileged", is_flag=True, help="All capabilities and devices."),
    _many("-p", "--publish", metavar="[[IP:]PORT:]PORT[/PROTOCOL]", help="Answer on a port of the host."),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports on free ports."),
    click.option("--pull", "policy", type=click.Choice(["always", "missing", "never"]), default="missing",
                 show_default=True, help="When to pull the image."),
    click.option("-q", "--quiet", is_flag=True, help="No progress of a pull."),
    click.option("--read-only", is_flag=True, help="Root file system read-only."),
    click.option("--restart", default="no", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped."),
    click.option("--rm", "remove", is_flag=True, help="Remove the container when it ends."),
    _text("--runtime", metavar="NAME", help="OCI runtime that the node knows; docker info lists them."),
    _many("--security-opt", metavar="OPTION", help="no-new-privileges, seccomp=FILE, … (docs/isolation.md)"),
    click.option("--shm-size", type=SIZE, default="0", metavar="BYTES", help="Of /dev/shm."),
    _many("--storage-opt", metavar="NAME=VALUE", help="Quotas of the writable layer: refused, no driver has them."),
    _text("--stop-signal", metavar="SIGNAL", help="Sent by stop."),
    click.option("--stop-timeout", type=int, metavar="SECONDS", help="Before stop kills."),
    _many("--sysctl", metavar="NAME=VALUE", help="A kernel parameter of its namespaces."),
    _many("--tmpfs", metavar="PATH[:OPTIONS]", help="A tmpfs."),
    click.option("-t", "--tty", is_flag=True, help="A terminal."),
    _many("--ulimit", metavar="NAME=SOFT[:HARD]", help="A resource limit of the process."),
    click.option("--use-api-socket", is_flag=True, help="Refused: the node's socket is root on this machine."),
    _text("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers."),
    _text("--userns", metavar="MODE", help="Whose ids it has: host, private, auto or auto:size=NUMBER."),
    _text("--uts", metavar="MODE", help="UTS namespace."),
    _many("-v", "--volume", metavar="[SOURCE:]PATH[:OPTIONS]", help="A folder of the host, or a volume."),
    _text("--volume-driver", metavar="NAME", help="Of volumes that are made; the node has one: local."),
    _many("--volumes-from", metavar="CONTAINER[:ro]", help="The mounts of another container."),
    _text("-w", "--workdir", metavar="PATH", help="Where the command starts."),
)  # fmt: skip


def create_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


Flags = Mapping[str, Any]


def body(flags: Flags, image: str, command: Sequence[str], *, attached: Sequence[str]) -> dict[str, Any]:
    """The request. `attached`: the streams that will be attached to, of stdin, stdout and stderr."""
    binds, anonymous = parse.volumes(flags["volume"])
    bindings = parse.ports(flags["publish"])
    mode, ends, links = networking(flags)
    labels = [line for name in flags["label_file"] for line in parse.file_lines(name)] + list(flags["label"])
    document: dict[str, Any] = {
        "Hostname": flags["hostname"] or "",
        "Domainname": flags["domainname"] or "",
        "User": flags["user"] or "",
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "ExposedPorts": {port: {} for port in (*parse.exposed(flags["expose"]), *bindings)},
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and "stdin" in attached,
        "Env": parse.environment(flags["env"], flags["env_file"]),
        "Cmd": list(command) or None,
        "Image": image,
        "Volumes": anonymous,
        "WorkingDir": flags["workdir"] or "",
        "Entrypoint": None if flags["entrypoint"] is None else [flags["entrypoint"]],
        "Labels": parse.pairs(labels),
        "Healthcheck": _health(flags),
        "StopSignal": flags["stop_signal"] or "",
        "StopTimeout": flags["stop_timeout"],
        "HostConfig": _host(flags, binds, bindings, mode, links),
        "NetworkingConfig": {"EndpointsConfig": ends} if ends else {},
    }
    return {name: value for name, value in document.items() if value not in (None, "", {}, [])} | {"Image": image}


def _host(
    flags: Flags, binds: Sequence[str], bindings: Mapping[str, Any], mode: str, links: Sequence[str]
) -> dict[str, Any]:
    if not flags["disable_content_trust"]:
        raise click.UsageError("--disable-content-trust=false: images are not checked for signatures yet")
    if flags["use_api_socket"]:
        raise click.UsageError("--use-api-socket is not supported: the node's socket is root on this machine; bind it "
                               "by name (-v) where that is meant")
    if flags["kernel_memory"]:
        click.echo("WARNING: --kernel-memory is discarded: no kernel of today limits it", err=True)
    security, paths = parse.security_options(flags["security_opt"])
    document = {
        "Binds": list(binds),
        "Mounts": [mount(text) for text in flags["mount"]],
        "Tmpfs": {text.partition(":")[0]: text.partition(":")[2] for text in flags["tmpfs"]},
        "VolumesFrom": list(flags["volumes_from"]),
        "VolumeDriver": flags["volume_driver"] or "",
        "PortBindings": dict(bindings),
        "PublishAllPorts": flags["publish_all"],
        "NetworkMode": mode,
        "Links": list(links),
        "Dns": list(flags["dns"]),
        "DnsOptions": list(flags["dns_option"]),
        "DnsSearch": list(flags["dns_search"]),
        "ExtraHosts": list(flags["add_host"]),
        "AutoRemove": flags["remove"],
        "RestartPolicy": parse.restart(flags["restart"]),
        "LogConfig": {"Type": flags["log_driver"] or "", "Config": parse.pairs(flags["log_opt"])},
        "CapAdd": list(flags["cap_add"]),
        "CapDrop": list(flags["cap_drop"]),
        "Privileged": flags["privileged"],
        "SecurityOpt": security,
        "ReadonlyRootfs": flags["read_only"],
        "GroupAdd": list(flags["group_add"]),
        "PidMode": flags["pid"] or "",
        "IpcMode": flags["ipc"] or "",
        "UTSMode": flags["uts"] or "",
        "UsernsMode": flags["userns"] or "",
        "CgroupnsMode": flags["cgroupns"] or "",
        "Init": flags["init"] or None,
        "Runtime": flags["runtime"] or "",
        "Isolation": flags["isolation"] or "",
        "StorageOpt": parse.pairs(flags["storage_opt"]),
        "Annotations": parse.pairs(flags["annotation"]),
    }
    kept = {name: value for name, value in (document | _limits(flags)).items() if value not in (None, "", {}, [], 0)}
    if flags["memory_swappiness"] == 0:
        kept["MemorySwappiness"] = 0  # the one limit of which zero says something
    return kept | paths


def _limits(flags: Flags) -> dict[str, Any]:
    devices, named = parse.split_devices(flags["device"])
    requests = [parse.gpus(flags["gpus"])] if flags["gpus"] else []
    return {
        "BlkioWeightDevice": [parse.of_device(text, "Weight") for text in flags["blkio_weight_device"]],
        "BlkioDeviceReadBps": [parse.of_device(text, "Rate", parse.size) for text in flags["device_read_bps"]],
        "BlkioDeviceWriteBps": [parse.of_device(text, "Rate", parse.size) for text in flags["device_write_bps"]],
        "BlkioDeviceReadIOps": [parse.of_device(text, "Rate") for text in flags["device_read_iops"]],
        "BlkioDeviceWriteIOps": [parse.of_device(text, "Rate") for text in flags["device_write_iops"]],
        "CpuCount": flags["cpu_count"],
        "CpuPercent": flags["cpu_percent"],
        "IOMaximumBandwidth": flags["io_maxbandwidth"],
        "IOMaximumIOps": flags["io_maxiops"],
        "CpuRealtimePeriod": flags["cpu_rt_period"],
        "CpuRealtimeRuntime": flags["cpu_rt_runtime"],
        "DeviceRequests": [*requests, *named],
        "Memory": flags["memory"],
        "MemorySwap": flags["memory_swap"],
        "MemoryReservation": flags["memory_reservation"],
        "MemorySwappiness": None if flags["memory_swappiness"] == -1 else flags["memory_swappiness"],
        "NanoCpus": flags["cpus"],
        "CpuShares": flags["cpu_shares"],
        "CpuPeriod": flags["cpu_period"],
        "CpuQuota": flags["cpu_quota"],
        "CpusetCpus": flags["cpuset_cpus"] or "",
        "CpusetMems": flags["cpuset_mems"] or "",
        "PidsLimit": flags["pids_limit"],
        "BlkioWeight": flags["blkio_weight"],
        "OomKillDisable": flags["oom_kill_disable"],
        "OomScoreAdj": flags["oom_score_adj"],
        "ShmSize": flags["shm_size"],
        "Ulimits": [parse.ulimit(text) for text in flags["ulimit"]],
        "Devices": [parse.device(text) for text in devices],
        "DeviceCgroupRules": list(flags["device_cgroup_rule"]),
        "Sysctls": parse.pairs(flags["sysctl"]),
        "CgroupParent": flags["cgroup_parent"] or "",
    }


def _health(flags: Flags) -> dict[str, Any] | None:
    values = {
        "Interval": flags["health_interval"],
        "Timeout": flags["health_timeout"],
        "StartPeriod": flags["health_start_period"],
        "StartInterval": flags["health_start_interval"],
        "Retries": flags["health_retries"],
    }
    given = {name: value for name, value in values.items() if value}
    if flags["no_healthcheck"]:
        if given or flags["health_cmd"]:
            raise click.UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if flags["health_cmd"]:
        given["Test"] = ["CMD-SHELL", flags["health_cmd"]]
    return given or None
