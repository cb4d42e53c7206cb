"""`linux.resources` and `linux.devices`: limits for the cgroup, and which device nodes exist and may be opened."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node.containers.errors import InvalidSpec
from node.containers.model import Device, DeviceRate, DeviceWeight, Resources

MIN_MEMORY = 6 * 1024 * 1024
CPU_PERIOD = 100_000
MAX_DEVICES = 1024
_NO_DEVICE = 'error gathering device information while adding custom device "{}": {}'
CPUSET = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")

# engine defaults (moby daemon/pkg/oci/defaults.go) and those an OCI runtime adds (runtime-spec config-linux.md,
# default devices): written out, so that any runtime given this bundle does the same.
DEFAULT_RULES: tuple[tuple[bool, str, int, int, str], ...] = (
    (False, "a", -1, -1, "rwm"),
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 5, "rwm"),
    (True, "c", 1, 7, "rwm"),
    (True, "c", 1, 8, "rwm"),
    (True, "c", 1, 9, "rwm"),
    (True, "c", 5, 0, "rwm"),
    (True, "c", 5, 1, "rwm"),
    (True, "c", 5, 2, "rwm"),
    (True, "c", 136, -1, "rwm"),
    (True, "c", -1, -1, "m"),
    (True, "b", -1, -1, "m"),
    (False, "c", 10, 229, "rwm"),
)


def resources(spec: Resources, *, privileged: bool) -> dict[str, Any]:
    return {"devices": _rules(spec, privileged=privileged)} | limits(spec)


def limits(spec: Resources) -> dict[str, Any]:
    """All but the devices: what can be changed while it runs."""
    result: dict[str, Any] = {}
    if memory := _memory(spec):
        result["memory"] = memory
    if cpu := _cpu(spec):
        result["cpu"] = cpu
    if spec.pids_limit > 0:
        result["pids"] = {"limit": spec.pids_limit}
    if spec.hugepages:
        result["hugepageLimits"] = [{"pageSize": size, "limit": limit} for size, limit in spec.hugepages.items()]
    if io := _block_io(spec):
        result["blockIO"] = io
    return result


def devices(spec: Resources, *, privileged: bool) -> list[dict[str, Any]]:
    """Nodes to make beyond those every container has. Raises InvalidSpec when one is not there."""
    nodes = {node["path"]: node for node in _host_devices()} if privileged else {}
    for device in spec.devices:
        nodes |= {node["path"]: node for node in _nodes(device)}
    return list(nodes.values())


def check(spec: Resources) -> None:
    """Docker's rules for limits. Raises InvalidSpec."""
    _check_memory(spec)
    _check_cpu(spec)
    for name, text in (("cpuset cpus", spec.cpuset_cpus), ("cpuset mems", spec.cpuset_mems)):
        if text and not CPUSET.fullmatch(text):
            raise InvalidSpec(f"Invalid value {text} for {name}")
    if not -1000 <= spec.oom_score_adj <= 1000:
        raise InvalidSpec(f"Invalid value {spec.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if spec.shm_size < 0:
        raise InvalidSpec("SHM size can not be less than 0")
    _check_block_io(spec)
    for rule in spec.device_cgroup_rules:
        if not DEVICE_RULE.fullmatch(rule):
            raise InvalidSpec(f"invalid device cgroup rule format: '{rule}'")
    for device in spec.devices:
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise InvalidSpec(f"invalid device mode: {device.permissions}")


def _check_memory(spec: Resources) -> None:
    if spec.memory < 0 or 0 < spec.memory < MIN_MEMORY:
        raise InvalidSpec("Minimum memory limit allowed is 6MB")
    if spec.memory_swap > 0 and not spec.memory:
        raise InvalidSpec("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < spec.memory_swap < spec.memory:
        raise InvalidSpec("Minimum memoryswap limit should be larger than memory limit, see usage")
    if spec.memory_swap < -1:
        raise InvalidSpec(f"Invalid memoryswap limit: {spec.memory_swap}")
    if spec.memory_reservation and not spec.memory_reservation >= MIN_MEMORY:
        raise InvalidSpec("Minimum memory reservation allowed is 6MB")
    if spec.memory and spec.memory_reservation > spec.memory:
        raise InvalidSpec("Minimum memory limit can not be less than memory reservation limit, see usage")
    if spec.memory_swappiness is not None and not -1 <= spec.memory_swappiness <= 100:
        raise InvalidSpec(f"Invalid value: {spec.memory_swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(spec: Resources) -> None:
    count = os.cpu_count() or 1
    if spec.nano_cpus < 0 or spec.nano_cpus > count * 10**9:
        raise InvalidSpec(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if spec.nano_cpus and (spec.cpu_period or spec.cpu_quota):
        other = "CPU Period" if spec.cpu_period else "CPU Quota"
        raise InvalidSpec(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if spec.cpu_period and not 1000 <= spec.cpu_period <= 1_000_000:
        raise InvalidSpec("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < spec.cpu_quota < 1000:
        raise InvalidSpec("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if spec.cpu_shares < 0:
        raise InvalidSpec(f"invalid CPU shares ({spec.cpu_shares}): value must be a positive integer")
    if spec.cpu_rt_period < 0 or spec.cpu_rt_runtime < 0:
        raise InvalidSpec("cpu real-time period and runtime cannot be negative")
    if spec.cpu_rt_period and spec.cpu_rt_runtime > spec.cpu_rt_period:
        raise InvalidSpec("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_block_io(spec: Resources) -> None:
    if spec.blkio_weight and not 10 <= spec.blkio_weight <= 1000:
        raise InvalidSpec("range of blkio weight is from 10 to 1000")
    for item in spec.blkio_weights:
        if not 10 <= item.weight <= 1000:
            raise InvalidSpec(f"range of blkio weight of {item.path} is from 10 to 1000")
    for rate in (*spec.read_bps, *spec.write_bps, *spec.read_iops, *spec.write_iops):
        if rate.rate < 0:
            raise InvalidSpec(f"invalid rate for device: {rate.path}:{rate.rate}")
    _block_io(spec)


def _memory(spec: Resources) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if spec.memory:
        memory["limit"] = spec.memory
        memory["swap"] = spec.memory_swap or 2 * spec.memory
    elif spec.memory_swap == -1:
        memory["swap"] = -1
    if spec.memory_reservation:
        memory["reservation"] = spec.memory_reservation
    if spec.memory_swappiness is not None and spec.memory_swappiness >= 0:
        memory["swappiness"] = spec.memory_swappiness
    if spec.oom_kill_disable:
        memory["disableOOMKiller"] = True
    if spec.kernel_memory_tcp:
        memory["kernelTCP"] = spec.kernel_memory_tcp
    return memory


def _cpu(spec: Resources) -> dict[str, Any]:
    quota, period = spec.cpu_quota, spec.cpu_period
    if spec.nano_cpus:
        period = CPU_PERIOD
        quota = spec.nano_cpus * CPU_PERIOD // 10**9
    values = {
        "shares": spec.cpu_shares,
        "quota": quota,
        "period": period,
        "cpus": spec.cpuset_cpus,
        "mems": spec.cpuset_mems,
        "realtimePeriod": spec.cpu_rt_period,
        "realtimeRuntime": spec.cpu_rt_runtime,
    }
    return {key: value for key, value in values.items() if value}


def _block_io(spec: Resources) -> dict[str, Any]:
    """Raises InvalidSpec for a path that is no block device: only those are scheduled."""
    found: dict[str, Any] = {"weight": spec.blkio_weight} if spec.blkio_weight else {}
    groups: dict[str, tuple[DeviceRate | DeviceWeight, ...]] = {
        "weightDevice": spec.blkio_weights,
        "throttleReadBpsDevice": spec.read_bps,
        "throttleWriteBpsDevice": spec.write_bps,
        "throttleReadIOPSDevice": spec.read_iops,
        "throttleWriteIOPSDevice": spec.write_iops,
    }
    for key, items in groups.items():
        if items:
            found[key] = [_of_device(item) for item in items]
    return found


def _of_device(item: DeviceRate | DeviceWeight) -> dict[str, int]:
    try:
        about = Path(item.path).stat()
    except (OSError, ValueError) as error:
        raise InvalidSpec(f"no such block device: {item.path[:300]}") from error
    if not stat.S_ISBLK(about.st_mode):
        raise InvalidSpec(f"{item.path[:300]} is not a block device")
    value = {"weight": item.weight} if isinstance(item, DeviceWeight) else {"rate": item.rate}
    return {"major": os.major(about.st_rdev), "minor": os.minor(about.st_rdev), **value}


def _rules(spec: Resources, *, privileged: bool) -> list[dict[str, Any]]:
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = [_rule(*default) for default in DEFAULT_RULES]
    for device in spec.devices:
        rules += [_rule(True, node["type"], node["major"], node["minor"], device.permissions)
                  for node in _nodes(device)]
    for text in spec.device_cgroup_rules:
        match = DEVICE_RULE.fullmatch(text)
        assert match is not None, "create checked it"
        kind, major, minor, access = match.groups()
        numbers = [-1 if number == "*" else int(number) for number in (major, minor)]
        rules.append(_rule(True, kind, numbers[0], numbers[1], access))
    return rules


def _rule(allow: bool, kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    numbers = {name: number for name, number in (("major", major), ("minor", minor)) if number >= 0}
    return {"allow": allow, "type": kind, **numbers, "access": access}


def _nodes(device: Device) -> list[dict[str, Any]]:
    """A folder (/dev/snd) stands for all devices below it, as with Docker. Raises InvalidSpec."""
    try:
        top = Path(device.host_path).resolve()
        if not top.is_dir():
            return [_node(device.host_path, device.container_path)]
        found = [_node(str(path), f"{device.container_path or device.host_path}/{path.relative_to(top)}")
                 for path in _below(top)]
    except (OSError, ValueError) as error:
        raise InvalidSpec(_NO_DEVICE.format(device.host_path, "no path")) from error
    if not found:
        raise InvalidSpec(_NO_DEVICE.format(device.host_path, "no device nodes in it"))
    return found


def _below(top: Path) -> Iterator[Path]:
    """Device nodes in a folder of the host; links are not followed. At most MAX_DEVICES, raises InvalidSpec."""
    count = 0
    for folder, _, files in os.walk(top):
        for path in sorted(Path(folder) / name for name in files):
            if not path.is_symlink() and (path.is_char_device() or path.is_block_device()):
                count += 1
                if count > MAX_DEVICES:
                    raise InvalidSpec(_NO_DEVICE.format(top, f"more than {MAX_DEVICES} device nodes in it"))
                yield path


def _node(host_path: str, container_path: str) -> dict[str, Any]:
    try:
        about = Path(host_path).stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise InvalidSpec(
            f'error gathering device information while adding custom device "{host_path}": {reason}'
        ) from error
    if not (stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode)):
        raise InvalidSpec(
            f'error gathering device information while adding custom device "{host_path}": not a device node'
        )
    return {
        "path": container_path or host_path,
        "type": "c" if stat.S_ISCHR(about.st_mode) else "b",
        "major": os.major(about.st_rdev),
        "minor": os.minor(about.st_rdev),
        "fileMode": stat.S_IMODE(about.st_mode),
        "uid": about.st_uid,
        "gid": about.st_gid,
    }


def _host_devices() -> Iterator[dict[str, Any]]:
    """All nodes of the host's /dev but terminals of others and the ones each container makes for itself."""
    for folder, folders, files in os.walk("/dev"):
        folders[:] = [name for name in folders if name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts")]
        for name in files:
            path = Path(folder) / name
            if name in ("console", "ptmx") or path.is_symlink():
                continue
            if path.is_char_device() or path.is_block_device():
                yield _node(str(path), str(path))


def parse_device(host_path: str, container_path: str, permissions: str) -> Device:
    """With Docker's defaults filled in."""
    return Device(host_path, container_path or host_path, permissions or "rwm")
