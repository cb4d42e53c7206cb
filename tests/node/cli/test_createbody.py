"""Every flag of `run` and `create` says something in the request, and the daemon takes what it says."""

from typing import Any

import click
import pytest

from node.api.types.create import parse_create
from node.api.types.fields import Fields
from node.cli.createbody import body, create_options
from ocispec.errors import InvalidArgument

FLAGS: list[tuple[list[str], str, Any]] = [
    (["--add-host", "a:1.2.3.4"], "HostConfig.ExtraHosts", ["a:1.2.3.4"]),
    (["--annotation", "a=b"], "HostConfig.Annotations", {"a": "b"}),
    (["--blkio-weight", "20"], "HostConfig.BlkioWeight", 20),
    (["--blkio-weight-device", "/dev/a:20"], "HostConfig.BlkioWeightDevice", [{"Path": "/dev/a", "Weight": 20}]),
    (["--cap-add", "SYS_TIME"], "HostConfig.CapAdd", ["SYS_TIME"]),
    (["--cap-drop", "ALL"], "HostConfig.CapDrop", ["ALL"]),
    (["--cgroup-parent", "/a"], "HostConfig.CgroupParent", "/a"),
    (["--cgroupns", "host"], "HostConfig.CgroupnsMode", "host"),
    (["--cpu-period", "5000"], "HostConfig.CpuPeriod", 5000),
    (["--cpu-quota", "5000"], "HostConfig.CpuQuota", 5000),
    (["--cpu-rt-period", "5000"], "HostConfig.CpuRealtimePeriod", 5000),
    (["--cpu-rt-runtime", "5000"], "HostConfig.CpuRealtimeRuntime", 5000),
    (["-c", "5"], "HostConfig.CpuShares", 5),
    (["--cpus", "1.5"], "HostConfig.NanoCpus", 1_500_000_000),
    (["--cpuset-cpus", "0"], "HostConfig.CpusetCpus", "0"),
    (["--cpuset-mems", "0"], "HostConfig.CpusetMems", "0"),
    (["--device", "/dev/a:/dev/b:r"], "HostConfig.Devices",
     [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
    (["--device-cgroup-rule", "c 1:3 r"], "HostConfig.DeviceCgroupRules", ["c 1:3 r"]),
    (["--device-read-bps", "/dev/a:1mb"], "HostConfig.BlkioDeviceReadBps", [{"Path": "/dev/a", "Rate": 1 << 20}]),
    (["--device-read-iops", "/dev/a:9"], "HostConfig.BlkioDeviceReadIOps", [{"Path": "/dev/a", "Rate": 9}]),
    (["--device-write-bps", "/dev/a:2k"], "HostConfig.BlkioDeviceWriteBps", [{"Path": "/dev/a", "Rate": 2048}]),
    (["--device-write-iops", "/dev/a:9"], "HostConfig.BlkioDeviceWriteIOps", [{"Path": "/dev/a", "Rate": 9}]),
    (["--dns", "1.1.1.1"], "HostConfig.Dns", ["1.1.1.1"]),
    (["--dns-opt", "ndots:1"], "HostConfig.DnsOptions", ["ndots:1"]),
    (["--dns-search", "x"], "HostConfig.DnsSearch", ["x"]),
    (["--domainname", "x"], "Domainname", "x"),
    (["--entrypoint", "/x"], "Entrypoint", ["/x"]),
    (["-e", "A=1"], "Env", ["A=1"]),
    (["--expose", "80-81"], "ExposedPorts", {"80/tcp": {}, "81/tcp": {}}),
    (["--group-add", "x"], "HostConfig.GroupAdd", ["x"]),
    (["--health-cmd", "x", "--health-interval", "1m30s"], "Healthcheck",
     {"Test": ["CMD-SHELL", "x"], "Interval": 90 * 10**9}),
    (["-h", "box"], "Hostname", "box"),
    (["--init"], "HostConfig.Init", True),
    (["-i"], "OpenStdin", True),
    (["--ipc", "host"], "HostConfig.IpcMode", "host"),
    (["--isolation", "default"], "HostConfig.Isolation", "default"),
    (["-l", "a=b"], "Labels", {"a": "b"}),
    (["--log-driver", "none"], "HostConfig.LogConfig.Type", "none"),
    (["--log-opt", "max-size=5m"], "HostConfig.LogConfig.Config", {"max-size": "5m"}),
    (["-m", "64m"], "HostConfig.Memory", 64 << 20),
    (["--memory-reservation", "64m"], "HostConfig.MemoryReservation", 64 << 20),
    (["--memory-swap", "-1"], "HostConfig.MemorySwap", -1),
    (["--memory-swappiness", "0"], "HostConfig.MemorySwappiness", 0),
    (["--memory-swappiness", "5"], "HostConfig.MemorySwappiness", 5),
    (["--mount", "type=tmpfs,target=/x"], "HostConfig.Mounts", [{"Type": "tmpfs", "Target": "/x"}]),
    (["--network", "none"], "HostConfig.NetworkMode", "none"),
    (["--no-healthcheck"], "Healthcheck", {"Test": ["NONE"]}),
    (["--oom-kill-disable"], "HostConfig.OomKillDisable", True),
    (["--oom-score-adj", "5"], "HostConfig.OomScoreAdj", 5),
    (["--pid", "host"], "HostConfig.PidMode", "host"),
    (["--pids-limit", "5"], "HostConfig.PidsLimit", 5),
    (["--privileged"], "HostConfig.Privileged", True),
    (["-p", "8080:80"], "HostConfig.PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
    (["-P"], "HostConfig.PublishAllPorts", True),
    (["--read-only"], "HostConfig.ReadonlyRootfs", True),
    (["--restart", "on-failure:3"], "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
    (["--rm"], "HostConfig.AutoRemove", True),
    (["--runtime", "runc"], "HostConfig.Runtime", "runc"),
    (["--security-opt", "no-new-privileges"], "HostConfig.SecurityOpt", ["no-new-privileges"]),
    (["--shm-size", "1m"], "HostConfig.ShmSize", 1 << 20),
    (["--stop-signal", "INT"], "StopSignal", "INT"),
    (["--stop-timeout", "0"], "StopTimeout", 0),
    (["--sysctl", "net.x=1"], "HostConfig.Sysctls", {"net.x": "1"}),
    (["--tmpfs", "/x:size=1m"], "HostConfig.Tmpfs", {"/x": "size=1m"}),
    (["-t"], "Tty", True),
    (["--ulimit", "nofile=5:6"], "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 5, "Hard": 6}]),
    (["-u", "1:2"], "User", "1:2"),
    (["--userns", "host"], "HostConfig.UsernsMode", "host"),
    (["--uts", "host"], "HostConfig.UTSMode", "host"),
    (["-v", "/a:/b"], "HostConfig.Binds", ["/a:/b"]),
    (["--volumes-from", "x"], "HostConfig.VolumesFrom", ["x"]),
    (["-w", "/w"], "WorkingDir", "/w"),
]
REFUSED = [
    (["--cpu-count", "1"], "CpuCount is a limit of Windows"),
    (["--cpu-percent", "1"], "CpuPercent is a limit of Windows"),
    (["--io-maxiops", "1"], "IOMaximumIOps is a limit of Windows"),
    (["--io-maxbandwidth", "1k"], "IOMaximumBandwidth is a limit of Windows"),
    (["--isolation", "hyperv"], 'invalid isolation: "hyperv"'),
    (["--gpus", "all"], 'select device driver "" with capabilities: [[gpu]]'),
    (["--gpus", "driver=nvidia,count=2"], 'select device driver "nvidia" with capabilities: [[gpu]]'),
    (["--gpus", '"device=0,1",capabilities=compute'], "with capabilities: [[compute gpu]]"),
    (["--device", "vendor.com/class=name"], 'select device driver "cdi"'),
    (["--storage-opt", "size=1g"], "supported only for overlay over xfs"),
]
WRONG = [
    ["--device-read-bps", "sda:1"], ["--device-read-iops", "/dev/a:x"], ["--blkio-weight-device", "/dev/a"],
    ["--gpus", "some"], ["--gpus", "what=1"], ["--use-api-socket"], ["--no-disable-content-trust"], ["--cpus", "x"],
    ["--memory", "1q"], ["--ulimit", "nofile"], ["--no-healthcheck", "--health-cmd", "x"], ["-p", "x:y"],
]  # fmt: skip


def document(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command(context_settings={"help_option_names": ["--help"]})
    @create_options
    def command(**flags: Any) -> None:
        found.update(body(flags, "busybox", (), attached=()))

    command.main(words, standalone_mode=False)
    return found


@pytest.mark.parametrize(("words", "where", "value"), FLAGS, ids=lambda item: str(item)[:40])
def test_each_flag_says_it(words: list[str], where: str, value: Any) -> None:
    found: Any = document(words)
    parse_create(Fields(found), name="", platform="")
    for name in where.split("."):
        found = found.get(name)
    assert found == value


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda item: str(item)[:40])
def test_what_the_daemon_refuses(words: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_create(Fields(document(words)), name="", platform="")
    assert message in refused.value.message


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_the_command_refuses(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        document(words)
