"""What a new process does between fork and execve, for the container's own process and for an exec.

The order is the safety of it; each step says why it stands where it stands. Everything runs in a forked copy of a
single-threaded monitor, so there is no lock to inherit, and every failure goes back through `Sync` before `_exit`.
"""

from __future__ import annotations

import os

from node.linux import capabilities
from node.linux import syscalls as sys
from node.runtime import (
    allowances,
    command,
    console,
    covers,
    devnodes,
    groupmounts,
    holdings,
    hooks,
    identity,
    labels,
    mountplan,
    namespaces,
    rootfs,
    sysctls,
)
from node.runtime.becoming import Confinement, Streams, Sync, become
from node.runtime.console import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from node.linux.cgroups.doors import Doors
    from node.linux.cgroups.store import Cgroup, Cgroups
    from node.runtime.identity import UserNamespace
    from node.runtime.mountplan import Step
    from node.runtime.processspec import Process
    from node.runtime.spec import Config

    State = Callable[[int, str], bytes]
    """runtime.md, State, as JSON: of a pid and a status."""

__all__ = ("Confinement", "Stdio", "Sync", "be_born", "be_executed")



def nothing_to_tell(_pid: int, _status: str) -> bytes:
    return b"{}"


EXECUTION = sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET | sys.CLONE_NEWCGROUP


def be_born(
    sync: Sync, config: Config, groups: Cgroups, confinement: Confinement, trees: dict[int, int], stdio: Stdio | None,
    id_maps: dict[object, int] | None = None, user: UserNamespace | None = None, *,
    state: State = nothing_to_tell, keyring: bool = True, preserve: int = 0, listening: int = 0,
) -> None:
    """The container's own process, from fork to execve. Never returns normally; raises what went wrong.

    `trees`: mounts of the host that are already copied, by number. `id_maps`: user namespaces of id-mapped mounts.
    `user`: the container's user namespace. Then this process stands outside its pid namespace, does what needs the
    host's rights, and gives birth to the one that goes on without them; it is the monitor's child as well. So it does,
    as an exec does, where the pid namespace is another container's, which may take over whatever it sees, and the
    kernel is one that lets us mount its procfs from here (namespaces.joins_unseen).
    `state`: what hooks are told. `keyring`: a session keyring of its own. `preserve`: so many descriptors from 3 on
    stay open, the first `listening` of them are LISTEN_FDS.
    """
    process = config.process
    outside = namespaces.joins_unseen(config, user)
    _detach(session=user is None and not outside)
    labels.check(process, config.mount_label)
    steps = labels.of_mounts(config, mountplan.plan(config))
    held = holdings.take(config, steps, trees, id_maps or {}, user)
    allowed = allowances.grant(process, forks=user is not None or outside)
    foreign = namespaces.join(config, user)
    if held.root < 0:
        held.root = holdings.take_root(config)
    proc = sysctls.procfs() if config.sysctl or labels.wanted(process) else -1
    if user is None:
        namespaces.enter_time(config)
        if outside:
            holdings.take_proc(held, steps, config.namespaces["pid"])
        enter_group = _Group(sync, groups, config)
    else:
        confinement = _all_inside(confinement)
        holdings.take_foreign(held, steps, foreign, config.namespaces.get("pid", ""))
        sysctls.write(proc, config, sysctls.OURS & foreign)
        if "uts" in foreign:
            _name(config)
        console.give_away(stdio, user, process)
        enter_group = _Group(sync, groups, config, ahead=True)
        _enter_user_namespace(sync, config, user)
    sys.unshare(namespaces.new(config))
    if keyring:
        sys.join_new_session_keyring()
    own_mounts = config.namespaces.get("mount") == ""
    nodes: dict[str, int] = {}
    if own_mounts:
        sys.mount("", "/", flags=sys.MS_SLAVE | sys.MS_REC)
        nodes = held.nodes.take()
        covers.lift(held.root)
    _build(config, groups, steps, held, enter_group, nodes)
    tell_hooks = _hooks(sync, config, state)
    if own_mounts:
        covers.enter(held.root)
    else:
        covers.change_root(held.root)
    streams = Streams(stdio, console.open_terminal(process, bind=True) if process.terminal else None,
                       given_away=user is not None, preserve=preserve, listening=listening)
    sysctls.write(proc, config, sysctls.OURS - foreign if user is not None else sysctls.OURS)
    if user is None or "uts" not in foreign:
        _name(config)
    _confine_tree(config, steps)
    become(sync, process, confinement, streams, allowed, outside=outside, proc=proc, hooks_before=tell_hooks,
           alone=config.namespaces.get("pid") == "")


def _name(config: Config) -> None:
    if config.hostname:
        sys.sethostname(config.hostname)
    if config.domainname:
        sys.setdomainname(config.domainname)


def _build(
    config: Config, groups: Cgroups, steps: list[Step], held: holdings.Holdings, enter_group: _Group,
    nodes: dict[str, int],
) -> None:
    root = rootfs.Root(held.root)
    for number, step in enumerate(steps):
        if step.kind == "cgroup" and not step.remount:
            enter_group()
            groupmounts.mount(root, step, groups, config)
        else:
            rootfs.build(root, step, held.mounts.get(number), first=number == 0)
    enter_group()
    if devnodes.has_own_dev(steps):
        devnodes.make_devices(root, config.devices, nodes)
    _working_folder(root, config.process.cwd)


def _hooks(sync: Sync, config: Config, state: State) -> Callable[[], None] | None:
    """The host's hooks run now, then ours in the container's namespaces; returns what runs those of its start."""
    if not any(kind in config.hooks for kind in hooks.IN_THE_BIRTH):
        return None
    # The host's procfs, still: the number that the host knows us by.
    pid = int(os.readlink("/proc/self"))
    if any(kind in config.hooks for kind in hooks.OF_THE_HOST):
        sync.report({"hooks": True})
        sync.wait_for(b"hooks")
    hooks.run_all("createContainer", config.hooks.get("createContainer", ()), state(pid, "creating"))
    starting = state(pid, "created")
    return lambda: hooks.run_all("startContainer", config.hooks.get("startContainer", ()), starting)


def _enter_user_namespace(sync: Sync, config: Config, user: UserNamespace) -> None:
    """Returns in the child, which is root of the container's user namespace and the first of its pid namespace."""
    offsets = namespaces.open_offsets(config)
    identity.enter(user)
    if config.namespaces.get("pid") == "":
        sys.unshare(sys.CLONE_NEWPID)
    namespaces.new_time(config, offsets)
    if pid := sys.fork_sibling():
        sync.report({"pid": pid})
        os._exit(0)
    os.setsid()
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def be_executed(
    sync: Sync, process: Process, init: int, group: Cgroup, confinement: Confinement, stdio: Stdio | None,
    *, outside: bool, user: UserNamespace | None = None, keyring: bool = True, preserve: int = 0, listening: int = 0,
    root: int = -1,
) -> None:
    """A further process in a running container; `init` is a pidfd of the container's own.

    `outside`: this process stands outside the container's pid namespace and gives birth to the one that enters it when
    nothing is left that it must not have. A container with CAP_SYS_PTRACE may take over whatever it sees, and must not
    see a process that still has our capabilities. So it is in every pid namespace but the host's.

    `root`: of a container without a mount namespace of its own, which alone says where its root is.
    """
    _detach(session=not outside)
    labels.check(process)
    allowances.set_affinity(process.affinity[0])
    allowed = allowances.grant(process, forks=outside)
    proc = sys.new_mount("proc", []) if labels.wanted(process) else -1
    group.join()
    allowances.set_affinity(process.affinity[1])
    # One call for all: a process that dies in between cannot leave us in half of its namespaces.
    namespaces.enter(init, EXECUTION | namespaces.time_flag() | (sys.CLONE_NEWPID if outside else 0))
    if root >= 0:
        covers.change_root(root)
    if user is not None:
        confinement = _all_inside(confinement)
        console.give_away(stdio, user, process)
        # Last, for some of the others may be the host's.
        sys.setns(init, sys.CLONE_NEWUSER)
        identity.become_root()
    if keyring:
        sys.join_new_session_keyring()
    streams = Streams(stdio, console.open_terminal(process, bind=False) if process.terminal else None,
                       given_away=user is not None, preserve=preserve, listening=listening)
    become(sync, process, confinement, streams, allowed, outside=outside, proc=proc)


def _all_inside(confinement: Confinement) -> Confinement:
    """In a user namespace of its own root has every capability, whatever the host lacks."""
    return Confinement(confinement.program, confinement.flags, frozenset(capabilities.ALL), confinement.personality)


class _Group:
    """Joins the container's cgroup and makes its cgroup namespace, whose root is where we stand then: when called
    first. Joining from inside is cheap; the monitor makes the group while we do other things.

    `ahead`: the way in is opened now, for when the right to it is gone.
    """

    def __init__(self, sync: Sync, groups: Cgroups, config: Config, *, ahead: bool = False) -> None:
        self._sync, self._groups, self._config = sync, groups, config
        self._joined = False
        self._doors = self._open() if ahead else None

    def _open(self) -> Doors:
        self._sync.wait_for(b"group")
        return self._groups.open(self._config.cgroup).doors()

    def __call__(self) -> None:
        if self._joined:
            return
        self._joined = True
        (self._doors or self._open()).enter()
        if self._config.namespaces.get("cgroup") == "":
            sys.unshare(sys.CLONE_NEWCGROUP)


def _detach(*, session: bool = True) -> None:
    sys.reset_signals()
    if session:
        os.setsid()
    # Nobody in the container may open our memory, descriptors or executable through /proc (CVE-2019-5736,
    # -2016-9962); execve makes the process dumpable again.
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _working_folder(root: rootfs.Root, cwd: str) -> None:
    """Made as root inside the root when the image lacks it, as Docker does for -w and WORKDIR."""
    try:
        os.close(root.make_folder(cwd))
    except OSError as error:
        text = os.strerror(error.errno or 0).lower()
        raise command.CannotExecute("other", f'mkdir of cwd ("{cwd}"): {text}') from error


def _confine_tree(config: Config, steps: list[Step]) -> None:
    for path in config.readonly:
        covers.make_readonly(path)
    if config.masked:
        mask = covers.Mask()
        for path in config.masked:
            mask.cover(path)
        mask.close()
    if any(mountplan.is_dev(step) and step.attributes & sys.MOUNT_ATTR_RDONLY for step in steps):
        dev = os.open("/dev", os.O_PATH | os.O_CLOEXEC)
        sys.mount_setattr(dev, set_=sys.MOUNT_ATTR_RDONLY)
        os.close(dev)
    top = os.open("/", os.O_PATH | os.O_CLOEXEC)
    if config.read_only:
        sys.mount_setattr(top, set_=sys.MOUNT_ATTR_RDONLY)
    if config.propagation:
        kind, recursive = mountplan.PROPAGATION[config.propagation]
        sys.mount_setattr(top, propagation=kind, recursive=recursive)
    os.close(top)
