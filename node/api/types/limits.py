"""The limits of HostConfig (Docker's Resources): taken by `create` and `update`, shown by `inspect`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from node.api.types.fields import Fields, InvalidField
from node.api.version import NEWEST, ApiVersion
from node.containers.model import Device, DeviceRate, DeviceWeight, Resources, Ulimit
from node.containers.sizes import parse_binary_size
from ocispec.errors import InvalidArgument, Unimplemented

NO_KERNEL_MEMORY = ApiVersion(1, 42)
KERNEL_MEMORY_WARNING = (
    "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded."
)
HUGEPAGES = "seawall.hugepages."
PAGE_SIZE = re.compile(r"[1-9][0-9]{0,3}[KMG]B")
_WINDOWS = ("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth")


def parse_limits(host: Fields) -> Resources:
    """Raises InvalidField, InvalidArgument, Unimplemented."""
    swappiness = host.optional_number("MemorySwappiness")
    _check_foreign(host)
    return Resources(
        memory=host.number("Memory"),
        memory_swap=host.number("MemorySwap"),
        memory_reservation=host.number("MemoryReservation"),
        memory_swappiness=None if swappiness == -1 else swappiness,
        nano_cpus=host.number("NanoCpus"),
        cpu_shares=host.number("CpuShares"),
        cpu_quota=host.number("CpuQuota"),
        cpu_period=host.number("CpuPeriod"),
        cpuset_cpus=host.text("CpusetCpus"),
        cpuset_mems=host.text("CpusetMems"),
        pids_limit=host.number("PidsLimit"),
        blkio_weight=host.number("BlkioWeight"),
        blkio_weights=tuple(
            DeviceWeight(item.text("Path"), item.number("Weight")) for item in host.objects("BlkioWeightDevice")
        ),
        read_bps=_rates(host, "BlkioDeviceReadBps"),
        write_bps=_rates(host, "BlkioDeviceWriteBps"),
        read_iops=_rates(host, "BlkioDeviceReadIOps"),
        write_iops=_rates(host, "BlkioDeviceWriteIOps"),
        cpu_rt_period=host.number("CpuRealtimePeriod"),
        cpu_rt_runtime=host.number("CpuRealtimeRuntime"),
        kernel_memory_tcp=host.number("KernelMemoryTCP"),
        ulimits=tuple(
            Ulimit(item.text("Name"), item.number("Soft"), item.number("Hard")) for item in host.objects("Ulimits")
        ),
        oom_kill_disable=host.flag("OomKillDisable"),
        oom_score_adj=host.number("OomScoreAdj"),
        devices=tuple(
            Device(
                item.text("PathOnHost"),
                item.text("PathInContainer") or item.text("PathOnHost"),
                item.text("CgroupPermissions") or "rwm",
            )
            for item in host.objects("Devices")
        ),
        device_cgroup_rules=host.texts("DeviceCgroupRules"),
        hugepages=_hugepages(host.mapping("Annotations")),
        shm_size=_shm_size(host),
        sysctls=host.mapping("Sysctls"),
    )


def discarded(host: Fields, version: ApiVersion) -> tuple[str, ...]:
    """Warnings about what no kernel of today can do. Newer clients have no word for it: theirs is passed over, as by
    Docker."""
    asked = host.number("KernelMemory")
    if version >= NO_KERNEL_MEMORY or not asked:
        return ()
    return (KERNEL_MEMORY_WARNING,)


def _check_foreign(host: Fields) -> None:
    """What asks for another kind of host, each refused in the words of whoever would have done it."""
    for name in _WINDOWS:
        if host.number(name):
            raise InvalidArgument(f"{host.name(name)} is a limit of Windows containers, this node runs Linux ones")
    if host.mapping("StorageOpt"):
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    for request in host.objects("DeviceRequests"):
        _refuse_request(request)
    if host.text("Cgroup"):
        raise Unimplemented(f"{host.name('Cgroup')} is not supported: containers have cgroups of their own")


def _refuse_request(request: Fields) -> None:
    """`--gpus` and CDI devices: there is no driver for either. All of it is read, so that a typo is told first."""
    capabilities = request.raw("Capabilities")
    groups = [] if capabilities is None else capabilities
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(isinstance(word, str) for word in group) for group in groups
    ):
        raise request.wrong("Capabilities", "a list of lists of strings", capabilities)
    request.number("Count")
    request.texts("DeviceIDs")
    request.mapping("Options")
    shown = " ".join(f"[{' '.join(group)}]" for group in groups)
    raise InvalidArgument(
        f'could not select device driver "{request.text("Driver")[:100]}" with capabilities: [{shown[:300]}]'
    )


def _rates(host: Fields, name: str) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(item.text("Path"), item.number("Rate")) for item in host.objects(name))


def _hugepages(annotations: Mapping[str, str]) -> dict[str, int]:
    """Docker's API has no word for them, so they are asked for by annotation: seawall.hugepages.2MB=64m"""
    found = {}
    for name, text in annotations.items():
        if name.startswith(HUGEPAGES):
            size = name.removeprefix(HUGEPAGES)
            if not PAGE_SIZE.fullmatch(size):
                raise InvalidArgument(f"annotation {name[:100]}: not a size of pages (want {HUGEPAGES}2MB)")
            found[size] = parse_binary_size(text)
    return found


def _shm_size(host: Fields) -> int:
    size = host.number("ShmSize")
    if size < 0:
        raise InvalidField("SHM size can not be less than 0")
    return size or Resources().shm_size


def limits_view(limits: Resources, version: ApiVersion = NEWEST) -> dict[str, Any]:
    document: dict[str, Any] = {
        "OomScoreAdj": limits.oom_score_adj,
        "ShmSize": limits.shm_size,
        "CpuShares": limits.cpu_shares,
        "Memory": limits.memory,
        "NanoCpus": limits.nano_cpus,
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": [{"Path": item.path, "Weight": item.weight} for item in limits.blkio_weights],
        "BlkioDeviceReadBps": _shown(limits.read_bps),
        "BlkioDeviceWriteBps": _shown(limits.write_bps),
        "BlkioDeviceReadIOps": _shown(limits.read_iops),
        "BlkioDeviceWriteIOps": _shown(limits.write_iops),
        "CpuPeriod": limits.cpu_period,
        "CpuQuota": limits.cpu_quota,
        "CpuRealtimePeriod": limits.cpu_rt_period,
        "CpuRealtimeRuntime": limits.cpu_rt_runtime,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "Devices": [
            {"PathOnHost": d.host_path, "PathInContainer": d.container_path, "CgroupPermissions": d.permissions}
            for d in limits.devices
        ],
        "DeviceCgroupRules": list(limits.device_cgroup_rules) or None,
        "DeviceRequests": None,
        "MemoryReservation": limits.memory_reservation,
        "MemorySwap": shown_swap(limits),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        # -1 is said, so that a copy made from this has no limit either.
        "PidsLimit": max(limits.pids_limit, -1) or None,
        "Ulimits": [{"Name": u.name, "Hard": u.hard, "Soft": u.soft} for u in limits.ulimits],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }
    if limits.kernel_memory_tcp:
        document["KernelMemoryTCP"] = limits.kernel_memory_tcp
    if version < NO_KERNEL_MEMORY:
        document["KernelMemory"] = 0
    if limits.sysctls:
        document["Sysctls"] = dict(limits.sysctls)
    return document


def shown_swap(limits: Resources) -> int:
    """Docker writes down what it made of nothing said: twice the memory."""
    return 2 * limits.memory if limits.memory > 0 and not limits.memory_swap else limits.memory_swap


def _shown(rates: Sequence[DeviceRate]) -> list[Mapping[str, Any]]:
    return [{"Path": item.path, "Rate": item.rate} for item in rates]
