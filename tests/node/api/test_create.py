"""The body of a create: honoured, refused or a 400 that names the field; never dropped, never a 500."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.api.types.create import parse_create, parse_exec
from node.api.types.fields import Fields
from node.containers.model import (
    CreateSpec,
    Device,
    DeviceRate,
    DeviceWeight,
    Healthcheck,
    LogSpec,
    Port,
    PublishedPort,
    RestartMode,
    RestartPolicy,
    Ulimit,
)
from node.network.model import EndpointSpec
from ocispec.errors import InvalidArgument, SeawallError, Unimplemented

# What Docker's client 28.2 sends for `docker run busybox`, field for field.
CLI_BODY: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True, "AttachStderr": True,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "busybox",
    "Volumes": {}, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "bridge",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [40, 120], "CapAdd": None, "CapDrop": None,
        "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None,
        "IpcMode": "", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
        "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": None,
        "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
        "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"bridge": {
        "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
    }}},
}  # fmt: skip


def parse(host: dict[str, Any] | None = None, **body: Any) -> CreateSpec:
    document = {"Image": "busybox", **body, **({"HostConfig": host} if host is not None else {})}
    return parse_create(Fields(document), name="", platform="")


def test_what_the_docker_command_sends_means_the_defaults() -> None:
    spec = parse_create(Fields(CLI_BODY), name="web", platform="linux/amd64")
    assert spec.name == "web"
    assert spec.network.mode == "bridge"
    plain = parse()
    assert spec.resources == plain.resources
    assert spec.security == plain.security
    assert spec.log == plain.log == LogSpec("")
    assert spec.restart == plain.restart == RestartPolicy()


def test_config() -> None:
    spec = parse(
        Cmd=["a", "b"], Entrypoint="run", Env=["A=1", "B"], WorkingDir="/w", User="u:g", Hostname="h", Domainname="d",
        Tty=True, OpenStdin=True, StdinOnce=True, AttachStdin=True, AttachStdout=True, AttachStderr=True,
        Labels={"k": "v"}, ExposedPorts={"80/tcp": {}, "53/UDP": {}, "9": {}}, Volumes={"/data": {}},
        StopSignal="SIGINT", StopTimeout=3,
        Healthcheck={"Test": ["CMD", "x"], "Interval": 10**9, "Timeout": 2, "StartPeriod": 3, "Retries": 4,
                     "StartInterval": 5},
    )  # fmt: skip
    assert (spec.cmd, spec.entrypoint, spec.env) == (("a", "b"), ("run",), ("A=1", "B"))
    assert (spec.workdir, spec.user, spec.hostname, spec.domainname) == ("/w", "u:g", "h", "d")
    assert spec.tty and spec.open_stdin and spec.stdin_once
    assert spec.attach_stdin and spec.attach_stdout and spec.attach_stderr
    assert spec.exposed_ports == (Port(80), Port(53, "udp"), Port(9))
    assert (spec.volumes, spec.labels) == (("/data",), {"k": "v"})
    assert (spec.stop_signal, spec.stop_timeout) == ("SIGINT", 3)
    assert spec.healthcheck == Healthcheck(("CMD", "x"), 10**9, 2, 3, 5, 4)


def test_no_network() -> None:
    assert parse(NetworkDisabled=True).network.mode == "none"


def test_an_empty_list_is_not_nothing() -> None:
    assert parse(Cmd=[], Entrypoint=[]).cmd == ()
    assert parse(Cmd=None).cmd is None
    assert parse({"MaskedPaths": []}).security.masked_paths == ()
    assert parse({"MaskedPaths": None}).security.masked_paths is None


def test_limits() -> None:
    limits = parse({
        "Memory": 1, "MemorySwap": -1, "MemoryReservation": 2, "MemorySwappiness": 0, "NanoCpus": 3, "CpuShares": 4,
        "CpuQuota": 5, "CpuPeriod": 6, "CpusetCpus": "0", "CpusetMems": "1", "PidsLimit": 7, "BlkioWeight": 8,
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "OomKillDisable": True, "OomScoreAdj": 9,
        "Devices": [{"PathOnHost": "/dev/a"}], "DeviceCgroupRules": ["c 1:3 r"], "ShmSize": 10,
        "Sysctls": {"net.x": "1"}, "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 11}],
        "BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 12}], "BlkioDeviceWriteBps": [{"Path": "/dev/a", "Rate": 13}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/a", "Rate": 14}], "KernelMemory": 9, "KernelMemoryTCP": 16,
        "BlkioDeviceWriteIOps": [{"Path": "/dev/a", "Rate": 15}], "CpuRealtimePeriod": 17, "CpuRealtimeRuntime": 18,
    }).resources  # fmt: skip
    assert limits.blkio_weights == (DeviceWeight("/dev/a", 11),)
    rates = (limits.read_bps, limits.write_bps, limits.read_iops, limits.write_iops)
    assert rates == tuple((DeviceRate("/dev/a", rate),) for rate in (12, 13, 14, 15))
    assert (limits.kernel_memory_tcp, limits.cpu_rt_period, limits.cpu_rt_runtime) == (16, 17, 18)
    assert (limits.memory, limits.memory_swap, limits.memory_reservation, limits.memory_swappiness) == (1, -1, 2, 0)
    assert (limits.nano_cpus, limits.cpu_shares, limits.cpu_quota, limits.cpu_period) == (3, 4, 5, 6)
    assert (limits.cpuset_cpus, limits.cpuset_mems, limits.pids_limit, limits.blkio_weight) == ("0", "1", 7, 8)
    assert limits.ulimits == (Ulimit("nofile", 1, 2),)
    assert limits.devices == (Device("/dev/a", "/dev/a", "rwm"),)
    assert (limits.device_cgroup_rules, limits.shm_size, limits.sysctls) == (("c 1:3 r",), 10, {"net.x": "1"})
    assert (limits.oom_kill_disable, limits.oom_score_adj) == (True, 9)


def test_ports() -> None:
    network = parse({
        "PortBindings": {
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": "8081"}],
            "53/udp": [{"HostPort": ""}],
            "9": None,
        },
        "PublishAllPorts": True,
    }).network  # fmt: skip
    assert network.bindings == (
        PublishedPort(Port(80), "127.0.0.1", 8080),
        PublishedPort(Port(80), "", 8081),
        PublishedPort(Port(53, "udp"), "", 0),
        PublishedPort(Port(9), "", 0),
    )
    assert network.publish_all


def test_the_rest_of_host_config() -> None:
    spec = parse({
        "NetworkMode": "host", "Dns": ["1.1.1.1"], "ExtraHosts": ["a:1"], "AutoRemove": True, "Init": True,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"],
        "Privileged": True, "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True, "GroupAdd": ["x"],
        "PidMode": "host", "IpcMode": "host", "UTSMode": "host", "CgroupnsMode": "host", "UsernsMode": "host",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
        "Tmpfs": {"/t": "size=1m"}, "VolumesFrom": ["other"], "ConsoleSize": [24, 80], "Annotations": {"a": "b"},
    })  # fmt: skip
    assert (spec.network.mode, spec.auto_remove, spec.init) == ("host", True, True)
    assert spec.restart == RestartPolicy(RestartMode.ON_FAILURE, 2)
    assert spec.log == LogSpec("json-file", {"max-size": "10m", "max-file": "2"})
    assert spec.security.cap_add == ("NET_ADMIN",)
    assert spec.namespaces.pid == spec.namespaces.ipc == spec.namespaces.uts == "host"
    assert (spec.tmpfs, spec.volumes_from, spec.console_size) == ({"/t": "size=1m"}, ("other",), (24, 80))


def test_mounts() -> None:
    spec = parse({
        "Binds": ["/a:/b:ro", "vol:/c"],
        "Mounts": [
            {"Type": "bind", "Source": "/x", "Target": "/d", "ReadOnly": True,
             "BindOptions": {"Propagation": "rslave", "NonRecursive": True, "CreateMountpoint": True}},
            {"Type": "volume", "Source": "v", "Target": "/e", "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}}},
            {"Type": "tmpfs", "Target": "/f", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700}},
        ],
    })  # fmt: skip
    kinds = [(mount.kind, mount.source, mount.target) for mount in spec.mounts]
    assert kinds == [
        ("bind", "/a", "/b"), ("volume", "vol", "/c"), ("bind", "/x", "/d"), ("volume", "v", "/e"), ("tmpfs", "", "/f"),
    ]  # fmt: skip
    bind = spec.mounts[2]
    assert (bind.read_only, bind.propagation, bind.recursive, bind.create_source) == (True, "rslave", False, True)
    assert spec.mounts[3].no_copy
    assert (spec.mounts[4].tmpfs_size, spec.mounts[4].tmpfs_mode) == (5, 0o700)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": "1g"}, "invalid JSON: HostConfig.Memory must be a whole number, not a string"),
        ({"Memory": 1.5}, "invalid JSON: HostConfig.Memory must be a whole number, not a number"),
        ({"Memory": 1 << 63}, "invalid JSON: HostConfig.Memory does not fit in 64 bits"),
        ({"Binds": ["/a"]}, "invalid volume specification: '/a'"),
        ({"Binds": ["/a:/b", "/c:/b"]}, "Duplicate mount point: /b"),
        ({"Binds": [5]}, "invalid JSON: HostConfig.Binds must be a list of strings, not a number"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "invalid restart policy: unknown policy 'sometimes'"),
        ({"PortBindings": {"0/tcp": []}}, 'invalid port specification: "0/tcp"'),
        ({"PortBindings": {"80/http": []}}, 'invalid port specification: "80/http"'),
        ({"PortBindings": {"80": [{"HostPort": "65536"}]}}, 'invalid port specification: "65536"'),
        ({"PortBindings": {"80": {"HostPort": "1"}}}, "PortBindings.80 must be a list of objects"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-siz": "1"}}}, "unknown log opt 'max-siz' for json-file"),
        ({"LogConfig": {"Type": "local", "Config": {"max-size": "ten"}}}, "invalid size: 'ten'"),
        ({"LogConfig": {"Type": "json-file", "Config": {"compress": "maybe"}}}, "error parsing compress"),
        ({"LogConfig": {"Type": "json-file", "Config": {"compress": "true", "max-file": "1"}}}, "compress cannot be"),
        ({"LogConfig": {"Type": "json-file", "Config": {"env-regex": "("}}}, "error parsing regexp"),
        ({"LogConfig": {"Type": "json-file", "Config": {"tag": "{{.Nme}}"}}}, "invalid log opt tag"),
        ({"LogConfig": {"Type": "local", "Config": {"max-buffer-size": "4m"}}}, "max-buffer-size option is only"),
        ({"LogConfig": {"Type": "local", "Config": {"mode": "sometimes"}}}, "unknown logging mode: sometimes"),
        ({"LogConfig": {"Type": "local", "Config": {"tag": "x"}}}, "unknown log opt 'tag' for local"),
        ({"LogConfig": {"Type": "no-such"}}, "logger: no log driver named 'no-such' is registered"),
        ({"Mounts": [{"Type": "bind", "Target": "/x"}]}, 'invalid mount config for type "bind": field Source must not'),
        ({"Mounts": [{"Type": "what", "Target": "/x"}]}, 'mount type unknown: "what"'),
        ({"Mounts": [{"Type": "tmpfs", "Source": "a", "Target": "/x"}]}, "field Source must not be specified"),
        ({"Mounts": [{"Type": "volume", "Target": "/x", "BindOptions": {}}]}, "field BindOptions must not be"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"StorageOpt": {"size": "1G"}}, "supported only for overlay over xfs with 'pquota'"),
        ({"CpuCount": 1}, "HostConfig.CpuCount is a limit of Windows containers"),
        ({"Isolation": "hyperv"}, 'invalid isolation: "hyperv"'),
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu", "nvidia"]]}]},
            'could not select device driver "" with capabilities: [[gpu nvidia]]',
        ),
        ({"DeviceRequests": [{"Capabilities": ["gpu"]}]}, "DeviceRequests[0].Capabilities must be a list of lists"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": "1m"}]}, "BlkioDeviceReadBps[0].Rate must be a whole"),
        ({"BlkioWeightDevice": {"Path": "/dev/x"}}, "HostConfig.BlkioWeightDevice must be a list of objects"),
        ({"ConsoleSize": [1]}, "HostConfig.ConsoleSize must be two numbers"),
    ],
)
def test_refused_as_wrong(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(host)
    assert message in refused.value.message


@pytest.mark.parametrize(
    "host",
    [
        {"Mounts": [{"Type": "cluster", "Target": "/x"}]},
        {"LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://127.0.0.1:1"}}},
    ],
)  # fmt: skip
def test_refused_as_not_done_yet(host: dict[str, Any]) -> None:
    with pytest.raises(Unimplemented, match="not supported yet"):
        parse(host)


def test_endpoints() -> None:
    asked = {
        "back": {"GwPriority": 3, "DriverOpts": {"k": "v"}},
        "front": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.1.0.9", "IPv6Address": "fd00::9"},
                  "MacAddress": "02:00:00:00:00:01", "Links": ["db:d"], "NetworkID": "x", "IPAddress": "1.2.3.4"},
    }  # fmt: skip
    network = parse({"NetworkMode": "front"}, NetworkingConfig={"EndpointsConfig": asked}).network
    assert network.endpoints == (
        EndpointSpec("front", aliases=("a",), ipv4="10.1.0.9", ipv6="fd00::9", mac="02:00:00:00:00:01", links=("db:d",)),
        EndpointSpec("back", driver_opts={"k": "v"}, gw_priority=3),
    )
    network = parse({"NetworkMode": "default"}, NetworkingConfig={"EndpointsConfig": {"default": {}}}).network
    assert network.endpoints == (EndpointSpec("bridge"),)
    assert parse({"NetworkMode": "n"}, MacAddress="02:00:00:00:00:02").network.endpoints[0].mac == "02:00:00:00:00:02"
    assert parse({"NetworkMode": "n", "Links": ["a:b"]}).network.endpoints[0].links == ("a:b",)
    assert parse({"Links": ["a:b"]}).network.links == ("a:b",)


def test_endpoints_that_are_wrong() -> None:
    with pytest.raises(InvalidArgument, match="must match the endpoint-specific MAC"):
        parse({"NetworkMode": "n"}, MacAddress="02:00:00:00:00:02",
              NetworkingConfig={"EndpointsConfig": {"n": {"MacAddress": "02:00:00:00:00:01"}}})  # fmt: skip
    body = Fields({"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"b": {}, "a": {}}}})
    with pytest.raises(InvalidArgument, match="cannot be connected to network endpoints: a, b"):
        parse_create(body, name="", platform="", several=False)


def test_names_match_whatever_their_case_and_unknown_ones_are_ignored() -> None:
    spec = parse_create(Fields({"image": "x", "hostconfig": {"memory": 5}, "Nonsense": 1}), name="", platform="")
    assert (spec.image, spec.resources.memory) == ("x", 5)


def test_exec() -> None:
    spec = parse_exec(Fields({"Cmd": ["a"], "Tty": True, "User": "u", "Env": ["A=1"], "ConsoleSize": [1, 2]}))
    assert (spec.cmd, spec.tty, spec.user, spec.env, spec.console_size) == (("a",), True, "u", ("A=1",), (1, 2))
    with pytest.raises(InvalidArgument, match="No exec command specified"):
        parse_exec(Fields({}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
host_fields = st.sampled_from([*CLI_BODY["HostConfig"], "Mounts", "Tmpfs", "Sysctls", "Init", "Annotations"])
body_fields = st.sampled_from([*CLI_BODY, "ExposedPorts", "Healthcheck", "StopTimeout", "MacAddress"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(body_fields, anything, max_size=4), st.dictionaries(host_fields, anything, max_size=4))
def test_nothing_a_client_sends_is_our_bug(body: dict[str, Any], host: dict[str, Any]) -> None:
    with suppress(SeawallError):
        parse_create(Fields({"Image": "x", "HostConfig": host, **body}), name="", platform="")
