"""features and spec: what this runtime can do (runtime-spec, features.md), and a configuration to begin with."""

from __future__ import annotations

import os

from node.linux import capabilities, cgroups
from node.linux.cgroups import CgroupError
from node.runtime import jsontext, mountplan, spec
from node.runtime.oci.failure import Failure, Journal, reason
from node.runtime.oci.lifecycle import print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.oci.arguments import Given
    from node.runtime.oci.store import Store

NEWEST = "1.2.1"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def features(_shelf: Store, _journal: Journal, _given: Given) -> int:
    print_json(described())
    return 0


def described() -> dict[str, object]:
    from node.linux import seccomp

    try:
        version = cgroups.detect().version
    except CgroupError:
        version = 0
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST,
        "hooks": list(HOOKS),
        "mountOptions": sorted(mountplan.OPTIONS),
        "linux": {
            "namespaces": sorted(spec.NAMESPACES),
            "capabilities": list(capabilities.ALL),
            "cgroup": {"v1": version == 1, "v2": version == 2, "systemd": version == 2, "systemdUser": version == 2,
                       "rdma": True},
            "seccomp": {"enabled": True, "actions": sorted(seccomp.ACTIONS)},
            "apparmor": {"enabled": os.path.isdir("/sys/module/apparmor")},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "false"},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def example(_shelf: Store, _journal: Journal, given: Given) -> int:
    path = os.path.join(given.text("bundle", "."), "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Failure(f"file {path} exists. Remove it first") from None
    except OSError as error:
        raise Failure(reason(error)) from error
    os.write(fd, jsontext.dumps(configuration(rootless=given.switch("rootless")), 4).encode() + b"\n")
    os.close(fd)
    return 0


def configuration(*, rootless: bool = False) -> dict[str, object]:
    """A shell on a terminal, confined as we would confine it."""
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, object] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                        "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                        "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    if rootless:
        linux["namespaces"] = [{"type": kind} for kind in (*(kind for kind in namespaces if kind != "network"), "user")]
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": NEWEST,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "seawall",
        "mounts": _mounts(rootless=rootless),
        "linux": linux,
    }


def _mounts(*, rootless: bool) -> list[dict[str, object]]:
    quiet = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *([] if rootless else ["gid=5"])]
    system: dict[str, object] = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]}
    if rootless:  # sysfs shows the network namespace, which is the host's here
        system = {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *quiet, "ro"]}
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        system,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": [*quiet, "relatime", "ro"]},
    ]
