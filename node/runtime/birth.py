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
from node.runtime import command, rootfs
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.mounts import GroupMount
    from node.linux.cgroups.store import Cgroup, Cgroups
    from node.runtime.spec import Config, Process

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
PTMX, NULL = os.makedev(5, 2), os.makedev(1, 3)
_NEW = {"network": sys.CLONE_NEWNET, "ipc": sys.CLONE_NEWIPC, "uts": sys.CLONE_NEWUTS, "mount": sys.CLONE_NEWNS}
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
    id_maps: dict[object, int] | None = None,
) -> None:
    """The container's own process, from fork to execve. Never returns normally; raises what went wrong.

    `trees`: mounts of the host that are already copied, by source. `id_maps`: user namespaces of id-mapped mounts.
    """
    process = config.process
    _detach()
    warnings = _limits(process)
    _namespaces(config)
    sys.join_new_session_keyring()
    sys.mount("", "/", flags=sys.MS_SLAVE | sys.MS_REC)
    root = rootfs.Root(config.root)
    steps = rootfs.plan(config)
    joined = False
    for step in steps:
        if step.kind == "cgroup" and not joined:
            _join_group(sync, config, groups)
            joined = True
        if step.kind == "cgroup":
            _cgroup(root, step, groups, config)
        else:
            rootfs.build(root, step, trees.get(step.source) if step.kind == "bind" else None,
                         -1 if id_maps is None else id_maps.get(step.id_map, -1))
    if not joined:
        _join_group(sync, config, groups)
    if rootfs.has_own_dev(steps):
        rootfs.make_devices(root, config.devices)
    _working_folder(root, process.cwd)
    os.close(root.fd)
    rootfs.enter(config.root)
    console = _console(process, bind=True) if process.terminal else None
    _sysctls(config)
    if config.hostname:
        sys.sethostname(config.hostname)
    if config.domainname:
        sys.setdomainname(config.domainname)
    _confine_tree(config)
    _become(sync, process, confinement, stdio, console, warnings)


def be_executed(
    sync: Sync, process: Process, init: int, group: Cgroup, confinement: Confinement, stdio: Stdio | None,
    *, outside: bool,
) -> None:
    """A further process in a running container; `init` is a pidfd of the container's own.

    `outside`: this process stands outside the container's pid namespace and gives birth to the one that enters it when
    nothing is left that it must not have. A container with CAP_SYS_PTRACE may take over whatever it sees, and must not
    see a process that still has our capabilities.
    """
    _detach(session=not outside)
    warnings = _limits(process)
    group.join()
    # One call for all: a process that dies in between cannot leave us in half of its namespaces.
    sys.setns(init, EXECUTION | (sys.CLONE_NEWPID if outside else 0))
    sys.join_new_session_keyring()
    console = _console(process, bind=False) if process.terminal else None
    _become(sync, process, confinement, stdio, console, warnings, outside=outside)


def _join_group(sync: Sync, config: Config, groups: Cgroups) -> None:
    """The monitor makes the group while the first namespaces and mounts are made here. Joining from inside is cheap,
    and must come before the cgroup namespace, whose root is where we stand then."""
    sync.wait_for(b"group")
    groups.open(config.cgroup).join()
    if config.namespaces.get("cgroup") == "":
        sys.unshare(sys.CLONE_NEWCGROUP)


def _detach(*, session: bool = True) -> None:
    sys.reset_signals()
    if session:
        os.setsid()
    # Nobody in the container may open our memory, descriptors or executable through /proc (CVE-2019-5736,
    # -2016-9962); execve makes the process dumpable again.
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    sys.prctl(sys.PR_SET_PDEATHSIG, 9)


def _limits(process: Process) -> list[str]:
    """rlimits and the OOM score, while we still may; what the host refuses is a warning and no failure."""
    warnings = []
    for kind, soft, hard in process.rlimits:
        number = getattr(resource, kind, None)
        if number is None:
            raise OSError(errno.EINVAL, f"unknown rlimit {kind}")
        try:
            resource.setrlimit(number, (_rlimit(soft), _rlimit(hard)))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                raise
            warnings.append(f"the host does not permit {kind} of {soft}:{hard}")
    if process.oom_score_adj is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(process.oom_score_adj))
        except PermissionError:
            warnings.append(f"the host does not permit an oom_score_adj of {process.oom_score_adj}")
    return warnings


def _rlimit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 0xFFFF_FFFF_FFFF_FFFF else value


def _namespaces(config: Config) -> None:
    # Every path is opened before the first is entered: afterwards /proc may mean another one.
    joined = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), _NEW[kind]) for kind, path in config.namespaces.items()
              if path and kind in _NEW]
    for fd, flag in joined:
        sys.setns(fd, flag)
        os.close(fd)
    flags = 0
    for kind, place in config.namespaces.items():
        if not place:
            flags |= _NEW.get(kind, 0)
    sys.unshare(flags)


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


def _sysctls(config: Config) -> None:
    """Through a procfs of our own that nobody else sees, so that no swapped /proc redirects a write
    (CVE-2025-52881)."""
    if not config.sysctl:
        return
    proc = sys.new_mount("proc", [])
    try:
        for key, value in config.sysctl.items():
            path = "sys/" + key.replace(".", "/")
            try:
                fd = sys.openat2(proc, path, os.O_WRONLY, resolve=sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_IN_ROOT)
                with os.fdopen(fd, "w") as file:
                    file.write(value)
            except OSError as error:
                raise OSError(error.errno, f"sysctl {key}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(proc)


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
    warnings: list[str], *, outside: bool = False,
) -> None:
    """Identity, command, leave to go, the filter, execve."""
    env = dict(entry.split("=", 1) for entry in process.env)
    master = _take_stdio(process, stdio, console, lead=not outside)
    os.umask(0o022 if process.umask is None else process.umask)
    if confinement.program is not None and not process.no_new_privileges:
        # Without no_new_privs loading a filter needs CAP_SYS_ADMIN, which goes next.
        seccomp.load(confinement.program, confinement.flags)
    inside = _enter_folder(process.cwd, last=False)
    _take_identity(process, confinement.available)
    if not inside:
        _enter_folder(process.cwd, last=True)
    # A folder outside the root reads as "(unreachable)/…": somebody handed us a descriptor of the host.
    if not sys.getcwd().startswith("/"):
        raise OSError(errno.EPERM, f"the working folder {process.cwd} lies outside the container")
    path = command.find(process.args[0], env)
    if outside:
        _enter_pids(sync, warnings, master)
    else:
        sync.report({"ready": True, "warnings": warnings}, () if master is None else (master,))
    if master is not None:
        os.close(master)
    sync.wait_for(b"go")
    # Everything above 2 closes at execve, the sync channel too; nothing of the host leaks (CVE-2024-21626).
    sys.close_on_exec_from(3)
    if confinement.program is not None and process.no_new_privileges:
        # The last thing of all: whatever the filter forbids, we no longer need.
        seccomp.load(confinement.program, confinement.flags)
    try:
        os.execve(path, list(process.args), env)
    except OSError as error:
        raise command.failed(path, error) from error


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
    process: Process, stdio: Stdio | None, console: tuple[int, int] | None, *, lead: bool
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
        if process.uid != status.st_uid and (stat.S_ISFIFO(status.st_mode) or console is not None):
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


def _take_identity(process: Process, available: frozenset[str]) -> None:
    granted = process.capabilities
    if granted is not None:
        capabilities.drop_bounding(granted["bounding"])
    capabilities.keep_across_setuid()
    os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)
    if granted is not None:
        sets = {kind: [name for name in names if name in available] for kind, names in granted.items()}
        capabilities.set_caps(effective=sets["effective"], permitted=sets["permitted"],
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
