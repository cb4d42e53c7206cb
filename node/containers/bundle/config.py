"""config.json of a container (OCI runtime-spec 1.2), from values alone: it opens nothing but what `users` reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from node.containers.bundle.mounts import mounts
from node.containers.bundle.ownids import OwnIds
from node.containers.bundle.process import environment, process
from node.containers.bundle.resources import devices, resources
from node.containers.bundle.security import confine
from node.containers.bundle.users import ProcessUser, resolve_user
from node.containers.errors import InvalidSpec
from node.containers.initprogram import TARGET as INIT_TARGET
from node.containers.model import Container, CreateSpec, ExecSpec, Security
from node.linux.usernamespaces import last_group

VERSION = "1.2.0"
IPC_SYSCTLS = frozenset(
    {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
     "kernel.shmmni", "kernel.shm_rmid_forced"}
)  # fmt: skip

_EXCHANGED = str.maketrans("./", "/.")


@dataclass(frozen=True, slots=True)
class Joins:
    """First processes of the containers whose namespaces are entered; 0: none."""

    pid: int = 0
    ipc: int = 0


NOBODY = Joins()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the container stands in, settled at start."""

    cgroup_path: str
    netns_path: str | None
    """None: the host's."""

    joins: Joins = NOBODY

    init: str = ""
    """The host's program for `--init`."""

    read: Callable[[str], bytes | None] = lambda _path: None
    """A file of the root (`rootfiles.LayeredRoot.read`)."""

    owner: Callable[[str], tuple[int, int]] = lambda _path: (0, 0)
    """uid and gid of a path of the host."""

    own: OwnIds | None = None
    """None: it has the host's ids."""


def config(container: Container, around: Surroundings) -> dict[str, Any]:
    """Raises UnknownUser, InvalidSpec, Unimplemented."""
    spec, security = container.spec, container.spec.security
    confinement = confine(security)
    user = resolve_user(spec.user, security.group_add, around.read)
    # ArgsEscaped and the like are Windows': args are exact words.
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec, around),
        "cgroupsPath": around.cgroup_path,
        "resources": resources(spec.resources, privileged=security.privileged),
        "devices": devices(spec.resources, privileged=security.privileged),
        "maskedPaths": list(confinement.masked),
        "readonlyPaths": list(confinement.readonly),
        "sysctl": _sysctls(spec, around),
    }
    if confinement.seccomp is not None:
        linux["seccomp"] = confinement.seccomp
    if around.own is not None:
        linux |= around.own.mappings()
    if propagation := _root_propagation(container):
        linux["rootfsPropagation"] = propagation
    result: dict[str, Any] = {
        "ociVersion": VERSION,
        "process": process(
            args=[*_init(container, around), container.path, *container.args],
            env=environment(spec.env, hostname=spec.hostname, tty=spec.tty),
            cwd=spec.workdir,
            tty=spec.tty,
            user=user,
            confinement=confinement,
            console_size=spec.console_size,
            ulimits=spec.resources.ulimits,
            oom_score_adj=spec.resources.oom_score_adj,
        ),
        "root": {"path": "rootfs", "readonly": security.read_only_rootfs},
        "mounts": mounts(
            container,
            cgroup_private=spec.namespaces.cgroup != "host",
            shm_of=around.joins.ipc,
            init=around.init if _init(container, around) else "",
            user=(user.uid, user.gid),
            owner=around.owner,
            own=around.own,
            cgroup_writable=confinement.writable_cgroups,
            proc=confinement.proc,
        ),
        "linux": linux,
        "annotations": dict(spec.annotations),
    }
    if spec.namespaces.uts != "host":
        result["hostname"] = spec.hostname
        if spec.domainname:
            result["domainname"] = spec.domainname
    return result


def net_sysctls() -> dict[str, str]:
    """Of every network namespace that is the container's own: low ports and ping need no capability."""
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last_group()}"}


def exec_process(container: Container, spec: ExecSpec, user: ProcessUser) -> dict[str, Any]:
    """The process of `docker exec`: the container's environment, confinement and limits, its own words and user."""
    security = container.spec.security
    confinement = confine(security)
    if spec.privileged and not security.privileged:
        confinement = confine(_privileged(container))
    return process(
        args=spec.cmd,
        env=environment((*container.spec.env, *spec.env), hostname=container.spec.hostname, tty=spec.tty),
        cwd=spec.workdir or container.spec.workdir,
        tty=spec.tty,
        user=user,
        confinement=confinement,
        console_size=spec.console_size,
        ulimits=container.spec.resources.ulimits,
        oom_score_adj=container.spec.resources.oom_score_adj,
    )


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool, host_ipc: bool) -> None:
    """Only what a namespace of the container's own holds may be set. Raises InvalidSpec; for create."""
    for name in sysctls:
        # A slash in it stands for a dot: net.//.kernel.core_pattern would be net/../kernel/core_pattern, the host's.
        if not {"", ".", ".."}.isdisjoint(name.translate(_EXCHANGED).split("/")):
            raise InvalidSpec(f"sysctl '{name}' is not whitelisted")
        if name.startswith("net.") and not host_network:
            continue
        if (name in IPC_SYSCTLS or name.startswith("fs.mqueue.")) and not host_ipc:
            continue
        if name.startswith(("net.", "fs.mqueue.")) or name in IPC_SYSCTLS:
            raise InvalidSpec(f"sysctl '{name}' is not allowed as it is not in a separate namespace")
        raise InvalidSpec(f"sysctl '{name}' is not whitelisted")


def _init(container: Container, around: Surroundings) -> tuple[str, ...]:
    """Only process 1 of a pid namespace has children to reap that are not its own."""
    wanted = container.spec.init and container.spec.namespaces.pid in ("", "private")
    return (INIT_TARGET, "--") if wanted and around.init else ()


def _privileged(container: Container) -> Security:
    return replace(container.spec.security, privileged=True)


def _namespaces(spec: CreateSpec, around: Surroundings) -> list[dict[str, str]]:
    wanted: list[dict[str, str]] = [*([around.own.namespace()] if around.own else []), {"type": "mount"}]
    asked = spec.namespaces
    if around.joins.pid:
        wanted.append({"type": "pid", "path": f"/proc/{around.joins.pid}/ns/pid"})
    elif asked.pid != "host":
        wanted.append({"type": "pid"})
    if around.netns_path:
        wanted.append({"type": "network", "path": around.netns_path})
    wanted += [
        {"type": kind}
        for kind, mode in (("uts", asked.uts), ("ipc", asked.ipc), ("cgroup", asked.cgroup))
        if mode != "host" and not (kind == "ipc" and around.joins.ipc)
    ]
    if around.joins.ipc:
        wanted.append({"type": "ipc", "path": f"/proc/{around.joins.ipc}/ns/ipc"})
    return wanted


def _sysctls(spec: CreateSpec, around: Surroundings) -> dict[str, str]:
    shares = around.netns_path is None or spec.network.mode.startswith("container:")
    if around.own is not None and not shares:
        # Its network namespace has been given both by the node: some the container's root could not set.
        return {name: value for name, value in spec.resources.sysctls.items() if not name.startswith("net.")}
    return {**({} if shares else net_sysctls()), **spec.resources.sysctls}


def _root_propagation(container: Container) -> str:
    """A bind that shares or receives mounts needs a root that does not cut them off (mount_namespaces(7))."""
    modes = {point.propagation.removeprefix("r") for point in container.mounts}
    if "shared" in modes:
        return "shared"
    return "slave" if "slave" in modes else ""
