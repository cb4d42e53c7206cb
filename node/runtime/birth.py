"""What a new process does between fork and execve, for the container's own process and for an exec.

The order is the safety of it; each step says why it stands where it stands. Everything runs in a forked copy of a
single-threaded monitor, so there is no lock to inherit, and every failure goes back through `Sync` before `_exit`.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import resource
import socket
import stat
import struct
import termios

from node.linux import capabilities, seccomp
from node.linux import syscalls as sys
from node.runtime import command, holdings, identity, namespaces, rootfs
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.doors import Doors
    from node.linux.cgroups.mounts import GroupMount
    from node.linux.cgroups.store import Cgroup, Cgroups
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config, Process

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
PTMX, NULL = os.makedev(5, 2), os.makedev(1, 3)
EXECUTION = sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET | sys.CLONE_NEWCGROUP


@record
class Confinement:
    """The seccomp program (None: unconfined) with its flags for seccomp(2), and the capabilities that this host gives
    us: what is not among them no process can be given."""

    program: bytes | None
    flags: int
    available: frozenset[str]


class Sync:
    """The child's end of the channel to its monitor: reports, and waits for leave to go on.

    Closed by a successful execve, which is how the monitor learns of it.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def report(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._channel.sendmsg([json.dumps(message).encode()], ancillary)

    def wait_for(self, word: bytes) -> None:
        """Until the monitor says it; ends the process when the monitor is gone."""
        if self._channel.recv(16) != word:
            os._exit(1)


class Stdio:
    """Descriptors for the process's 0 (-1: the container's null device), 1 and 2."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.fds = (stdin, stdout, stderr)


def be_born(
    sync: Sync, config: Config, groups: Cgroups, confinement: Confinement, trees: dict[str, int], stdio: Stdio | None,
    id_maps: dict[object, int] | None = None, user: UserNamespace | None = None,
) -> None:
    """The container's own process, from fork to execve. Never returns normally; raises what went wrong.

    `trees`: mounts of the host that are already copied, by source. `id_maps`: user namespaces of id-mapped mounts.
    `user`: the container's user namespace. Then this process stands outside its pid namespace, does what needs the
    host's rights, and gives birth to the one that goes on without them; it is the monitor's child as well. So it does,
    as an exec does, where the pid namespace is another container's, which may take over whatever it sees.
    """
    process = config.process
    outside = user is None and bool(config.namespaces.get("pid"))
    _detach(session=user is None and not outside)
    steps = rootfs.plan(config)
    held = holdings.take(config, steps, trees, id_maps or {}, user)
    warnings, limits = _raise_limits(process)
    foreign = namespaces.join(config, user)
    proc = sys.new_mount("proc", []) if config.sysctl else -1
    if user is None:
        enter_group = _Group(sync, groups, config)
    else:
        confinement = Confinement(confinement.program, confinement.flags, frozenset(capabilities.ALL))
        holdings.take_foreign(held, steps, foreign)
        _sysctls(proc, config, {"network", "ipc"} & foreign)
        _give_away(stdio, user, process)
        enter_group = _Group(sync, groups, config, ahead=True)
        _enter_user_namespace(sync, config, user)
    sys.unshare(namespaces.new(config))
    sys.join_new_session_keyring()
    sys.mount("", "/", flags=sys.MS_SLAVE | sys.MS_REC)
    _build(config, groups, steps, held, enter_group)
    enter_group()
    root = rootfs.Root(held.root)
    if rootfs.has_own_dev(steps):
        rootfs.make_devices(root, config.devices)
    _working_folder(root, process.cwd)
    rootfs.enter(held.root)
    console = _console(process, bind=True) if process.terminal else None
    _sysctls(proc, config, {"network", "ipc"} - (foreign if user is not None else set()))
    if config.hostname:
        sys.sethostname(config.hostname)
    if config.domainname:
        sys.setdomainname(config.domainname)
    _confine_tree(config)
    _become(sync, process, confinement, stdio, console, warnings, limits, outside=outside, user=user,
            alone=config.namespaces.get("pid") == "")


def _build(
    config: Config, groups: Cgroups, steps: list[rootfs.Step], held: holdings.Holdings, enter_group: _Group
) -> None:
    rootfs.lift(held.root)
    root = rootfs.Root(held.root)
    for number, step in enumerate(steps):
        if step.kind == "cgroup":
            enter_group()
            _cgroup(root, step, groups, config)
        else:
            rootfs.build(root, step, held.mounts.get(number))


def _enter_user_namespace(sync: Sync, config: Config, user: UserNamespace) -> None:
    """Returns in the child, which is root of the container's user namespace and the first of its pid namespace."""
    identity.enter(user)
    if config.namespaces.get("pid") == "":
        sys.unshare(sys.CLONE_NEWPID)
    if pid := sys.fork_sibling():
        sync.report({"pid": pid})
        os._exit(0)
    os.setsid()
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def be_executed(
    sync: Sync, process: Process, init: int, group: Cgroup, confinement: Confinement, stdio: Stdio | None,
    *, outside: bool, user: UserNamespace | None = None,
) -> None:
    """A further process in a running container; `init` is a pidfd of the container's own.

    `outside`: this process stands outside the container's pid namespace and gives birth to the one that enters it when
    nothing is left that it must not have. A container with CAP_SYS_PTRACE may take over whatever it sees, and must not
    see a process that still has our capabilities. So it is in every pid namespace but the host's.
    """
    _detach(session=not outside)
    warnings, limits = _raise_limits(process)
    group.join()
    # One call for all: a process that dies in between cannot leave us in half of its namespaces.
    sys.setns(init, EXECUTION | (sys.CLONE_NEWPID if outside else 0))
    if user is not None:
        confinement = Confinement(confinement.program, confinement.flags, frozenset(capabilities.ALL))
        _give_away(stdio, user, process)
        # Last, for some of the others may be the host's.
        sys.setns(init, sys.CLONE_NEWUSER)
        identity.become_root()
    sys.join_new_session_keyring()
    console = _console(process, bind=False) if process.terminal else None
    _become(sync, process, confinement, stdio, console, warnings, limits, outside=outside, user=user)


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


def _give_away(stdio: Stdio | None, user: UserNamespace, process: Process) -> None:
    """Pipes to the container's user; its root could not, for it does not own them."""
    for fd in () if stdio is None else stdio.fds:
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, user.host_uid(process.uid), -1)


def _detach(*, session: bool = True) -> None:
    sys.reset_signals()
    if session:
        os.setsid()
    # Nobody in the container may open our memory, descriptors or executable through /proc (CVE-2019-5736,
    # -2016-9962); execve makes the process dumpable again.
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _raise_limits(process: Process) -> tuple[list[str], list[tuple[int, int, int]]]:
    """rlimits above the host's and the OOM score, while we still may. What the host refuses is a warning and no
    failure. Returns warnings, and the rlimits for `_become`: what this process does itself is not to meet them."""
    warnings, limits = [], []
    for kind, soft, hard in process.rlimits:
        number = getattr(resource, kind, None)
        if number is None:
            raise OSError(errno.EINVAL, f"unknown rlimit {kind}")
        wanted, (now, top) = (_rlimit(soft), _rlimit(hard)), resource.getrlimit(number)
        try:
            if wanted[1] != top and (wanted[1] == resource.RLIM_INFINITY or wanted[1] > top != resource.RLIM_INFINITY):
                resource.setrlimit(number, (now, wanted[1]))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                raise
            warnings.append(f"the host does not permit {kind} of {soft}:{hard}")
            continue
        limits.append((number, *wanted))
    if process.oom_score_adj is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(process.oom_score_adj))
        except PermissionError:
            warnings.append(f"the host does not permit an oom_score_adj of {process.oom_score_adj}")
    return warnings, limits


def _rlimit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 0xFFFF_FFFF_FFFF_FFFF else value


def _cgroup(root: rootfs.Root, step: rootfs.Step, groups: Cgroups, config: Config) -> None:
    """/sys/fs/cgroup: one mount (version 2), or a tmpfs that holds one a hierarchy (version 1)."""
    layout = groups.mounts(config.cgroup, private=config.namespaces.get("cgroup") == "")
    if not layout.tmpfs:
        for mount in layout.mounts:
            _build_cgroup(root, mount, step)
        return
    writable = step.attributes & ~sys.MOUNT_ATTR_RDONLY
    rootfs.build(root, rootfs.Step(step.target, "tmpfs", "tmpfs", writable, 0, 0, False, (("mode", "755"),), ""))
    folder = root.open(step.target, os.O_PATH | os.O_DIRECTORY)
    for mount in layout.mounts:
        if mount.source:
            _build_cgroup(root, mount, step)
        else:
            rootfs.new_inside(folder, mount.target, mount.fstype, _options(mount.data), step.attributes)
    for name, target in layout.links:
        os.symlink(target, name, dir_fd=folder)
    if step.attributes & sys.MOUNT_ATTR_RDONLY:
        sys.mount_setattr(folder, set_=sys.MOUNT_ATTR_RDONLY)
    os.close(folder)


def _build_cgroup(root: rootfs.Root, mount: GroupMount, step: rootfs.Step) -> None:
    kind = "bind" if mount.source else mount.fstype
    rootfs.build(root, rootfs.Step(f"{step.target}/{mount.target}", kind, mount.source or kind, step.attributes, 0, 0,
                                   False, _options(mount.data), ""))


def _options(data: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [pair.partition("=") for pair in data.split(",") if pair]
    return tuple((name, value if equals else None) for name, equals, value in pairs)


def _working_folder(root: rootfs.Root, cwd: str) -> None:
    """Made as root inside the root when the image lacks it, as Docker does for -w and WORKDIR."""
    try:
        os.close(root.make_folder(cwd))
    except OSError as error:
        text = os.strerror(error.errno or 0).lower()
        raise command.CannotExecute("other", f'mkdir of cwd ("{cwd}"): {text}') from error


def _console(process: Process, *, bind: bool) -> tuple[int, int]:
    """(master, slave) of a new pty of the container's own devpts.

    The slave comes from the master by TIOCGPTPEER: no path that the container could swap (CVE-2025-52565).
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != PTMX:
        raise OSError(errno.ENOTTY, "/dev/pts/ptmx in the container is no pseudo-terminal")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    rows, columns = process.console
    if rows and columns:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if bind:
        try:
            node = os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
            os.close(node)
        except OSError:
            return master, slave
        place = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        copy = sys.open_tree(slave, "", sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH)
        sys.move_mount(copy, place)
        os.close(copy)
        os.close(place)
    return master, slave


def _sysctls(proc: int, config: Config, kinds: set[str]) -> None:
    """Those of the namespaces in `kinds`, through a procfs of our own that nobody else sees, so that no swapped /proc
    redirects a write (CVE-2025-52881)."""
    for key, value in config.sysctl.items():
        if ("network" if key.startswith("net.") else "ipc") not in kinds:
            continue
        path = "sys/" + key.replace(".", "/")
        try:
            fd = sys.openat2(proc, path, os.O_WRONLY, resolve=sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_IN_ROOT)
            with os.fdopen(fd, "w") as file:
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}: {os.strerror(error.errno or 0)}") from error


def _confine_tree(config: Config) -> None:
    for path in config.readonly:
        rootfs.make_readonly(path)
    if config.masked:
        mask = rootfs.Mask()
        for path in config.masked:
            mask.cover(path)
        mask.close()
    top = os.open("/", os.O_PATH | os.O_CLOEXEC)
    if config.read_only:
        sys.mount_setattr(top, set_=sys.MOUNT_ATTR_RDONLY)
    if config.propagation:
        kind, recursive = rootfs.PROPAGATION[config.propagation]
        sys.mount_setattr(top, propagation=kind, recursive=recursive)
    os.close(top)


def _become(
    sync: Sync, process: Process, confinement: Confinement, stdio: Stdio | None, console: tuple[int, int] | None,
    warnings: list[str], limits: list[tuple[int, int, int]], *, outside: bool = False,
    user: UserNamespace | None = None, alone: bool = False,
) -> None:
    """Identity, command, leave to go, the filter, execve.

    Whatever is called under the filter it must permit, so it is loaded as late as can be. Without no_new_privs that
    takes CAP_SYS_ADMIN, which nobody in the container may find in us: only where we are `alone` in our pid namespace
    do we keep it until the end.
    """
    env = dict(entry.split("=", 1) for entry in process.env)
    master = _take_stdio(process, stdio, console, lead=not outside, given_away=user is not None)
    for number, soft, hard in limits:
        resource.setrlimit(number, (soft, hard))
    os.umask(0o022 if process.umask is None else process.umask)
    inside = _enter_folder(process.cwd, last=False)
    keep = ("CAP_SYS_ADMIN",) if confinement.program is not None and not process.no_new_privileges else ()
    _take_identity(process, confinement.available, keep)
    if not inside:
        _enter_folder(process.cwd, last=True)
    # A folder outside the root reads as "(unreachable)/…": somebody handed us a descriptor of the host.
    if not sys.getcwd().startswith("/"):
        raise OSError(errno.EPERM, f"the working folder {process.cwd} lies outside the container")
    path = command.find(process.args[0], env)
    # Everything above 2 closes at execve, the sync channel too; nothing of the host leaks (CVE-2024-21626). What is
    # opened after this closes there of itself.
    sys.close_on_exec_from(3)
    if keep and not alone:
        _load_with(keep, process, confinement)
    if outside:
        _enter_pids(sync, warnings, master)
    else:
        sync.report({"ready": True, "warnings": warnings}, () if master is None else (master,))
    if master is not None:
        os.close(master)
    sync.wait_for(b"go")
    if keep and alone:
        _load_with(keep, process, confinement)
    elif confinement.program is not None and not keep:
        seccomp.load(confinement.program, confinement.flags)
    try:
        os.execve(path, list(process.args), env)
    except OSError as error:
        raise command.failed(path, error) from error


def _load_with(keep: tuple[str, ...], process: Process, confinement: Confinement) -> None:
    """The filter, and after it what `keep` stands for goes: capset(2) is all that is called under it."""
    assert confinement.program is not None
    granted = process.capabilities
    if granted is None:
        if process.uid:  # setuid(2) has left us what is permitted, and nothing of it effective
            capabilities.replace_sets(effective=keep, permitted=confinement.available, inheritable=())
        seccomp.load(confinement.program, confinement.flags)
        return
    sets = _within(granted, confinement.available)
    effective, permitted, inheritable = sets["effective"], sets["permitted"], sets["inheritable"]
    capabilities.replace_sets(effective=[*effective, *keep], permitted=[*permitted, *keep], inheritable=inheritable)
    seccomp.load(confinement.program, confinement.flags)
    capabilities.replace_sets(effective=effective, permitted=permitted, inheritable=inheritable)


def _within(granted: dict[str, tuple[str, ...]], available: frozenset[str]) -> dict[str, list[str]]:
    return {kind: [name for name in names if name in available] for kind, names in granted.items()}


def _enter_pids(sync: Sync, warnings: list[str], master: int | None) -> None:
    """Returns in the child, which is in the container's pid namespace; this process ends."""
    try:
        pid = sys.fork_sibling()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            # fork(2): the first process of the pid namespace has ended
            raise command.CannotExecute("gone", "the container is not running") from error
        raise
    if pid:
        sync.report({"ready": True, "warnings": warnings, "pid": pid}, () if master is None else (master,))
        os._exit(0)
    os.setsid()
    if master is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _take_stdio(
    process: Process, stdio: Stdio | None, console: tuple[int, int] | None, *, lead: bool, given_away: bool
) -> int | None:
    """Put stdio on 0, 1, 2 and give it to the user. The master of a console is for the monitor."""
    if console is not None:
        slave = console[1]
        if lead:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        fds: tuple[int, int, int] = (slave, slave, slave)
    else:
        assert stdio is not None
        stdin, stdout, stderr = stdio.fds
        fds = (_no_input() if stdin < 0 else stdin, stdout, stderr)
    for number, fd in enumerate(fds):
        os.dup2(fd, number, inheritable=True)
        status = os.fstat(number)
        ours = console is not None or (stat.S_ISFIFO(status.st_mode) and not given_away)
        if ours and process.uid != status.st_uid:
            os.fchown(number, process.uid, status.st_gid)
    return console[0] if console is not None else None


def _no_input() -> int:
    """The container's own null device. Through the host's, /proc/self/fd/0 would let root in the container change the
    mode or owner of the host's. Where the container has something else there: a pipe that has ended."""
    try:
        null = os.open("/dev/null", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        null = -1
    if null >= 0:
        status = os.fstat(null)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL:
            os.set_blocking(null, True)
            return null
        os.close(null)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    return reading


def _take_identity(process: Process, available: frozenset[str], keep: tuple[str, ...] = ()) -> None:
    """`keep`: capabilities that stay permitted for now, beside the process's own."""
    granted = process.capabilities
    if granted is not None:
        capabilities.drop_bounding(granted["bounding"])
    capabilities.keep_across_setuid()
    os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)
    if granted is not None:
        sets = _within(granted, available)
        capabilities.set_caps(effective=sets["effective"], permitted=[*sets["permitted"], *keep],
                              inheritable=sets["inheritable"], ambient=sets["ambient"])
    if process.no_new_privileges:
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    # A change of identity clears the death signal.
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _enter_folder(cwd: str, *, last: bool) -> bool:
    """First as root, who may enter where the user may not (a home of somebody else's); where root may not and the user
    may (NFS), as the user."""
    try:
        os.chdir(cwd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) and not last:
            return False
        kinds = {errno.ENOENT: "not-found", errno.EACCES: "permission"}
        raise command.CannotExecute(
            kinds.get(error.errno or 0, "other"),
            f'chdir to cwd ("{cwd}") set in config.json failed: {os.strerror(error.errno or 0).lower()}',
        ) from error
    return True
