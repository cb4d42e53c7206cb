"""The container's file tree: mounts as data (`plan`), then carried out (`build`) by descriptors, never by path twice.

The root file system is hostile: any component may be a symlink to anywhere. Every place inside it is found with
openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) from a descriptor of the root, every mount is made detached and moved
onto the descriptor of its place (CVE-2019-19921, -2021-30465, -2023-27561, -2024-45310 and their kin).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from node.linux import syscalls as sys
from node.runtime import hostdevices
from node.runtime.record import record
from node.runtime.spec import Config, Device, InvalidConfig, Mount

IN_ROOT = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS

ATTRIBUTES = {
    "ro": sys.MOUNT_ATTR_RDONLY, "nosuid": sys.MOUNT_ATTR_NOSUID, "nodev": sys.MOUNT_ATTR_NODEV,
    "noexec": sys.MOUNT_ATTR_NOEXEC, "nodiratime": sys.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": sys.MOUNT_ATTR_NOSYMFOLLOW,
}
_OPPOSITE = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime",
             "symfollow": "nosymfollow"}
_ATIME = {"relatime": sys.MOUNT_ATTR_RELATIME, "atime": sys.MOUNT_ATTR_RELATIME,
          "norelatime": sys.MOUNT_ATTR_RELATIME, "nostrictatime": sys.MOUNT_ATTR_RELATIME,
          "noatime": sys.MOUNT_ATTR_NOATIME,
          "strictatime": sys.MOUNT_ATTR_STRICTATIME}
PROPAGATION = {
    "private": (sys.MS_PRIVATE, False), "rprivate": (sys.MS_PRIVATE, True),
    "slave": (sys.MS_SLAVE, False), "rslave": (sys.MS_SLAVE, True),
    "shared": (sys.MS_SHARED, False), "rshared": (sys.MS_SHARED, True),
    "unbindable": (sys.MS_UNBINDABLE, False), "runbindable": (sys.MS_UNBINDABLE, True),
}
NEW_TYPES = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"})

# What may lie over a file of /proc: all that tools such as lxcfs replace. Anything else there could feed our own writes
# to /proc into another file (CVE-2019-19921).
OVER_PROC = frozenset(("/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
                       "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid"))
MAX_LINKS = 40

DEFAULT_DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)
DEV_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
)


class Misplaced(OSError):
    """Nothing may be mounted there; the message says why."""


@record
class Step:
    """One mount. `attributes` are set on it, `recursive_attributes` also on all below it; `data` goes to a new file
    system. `propagation` is a key of PROPAGATION or ""."""

    target: str
    kind: str
    source: str
    attributes: int
    clear: int
    recursive_attributes: int
    recursive: bool
    data: tuple[tuple[str, str | None], ...]
    propagation: str
    subdir: str = ""
    """Of a bind: only this folder or file below the source (mount(8), X-mount.subdir)."""

    id_map: object = None
    """Of a bind: whose ids its files show: a mapping, CONTAINER (those of the container's user namespace), or None."""

    id_map_below: bool = False


CONTAINER = "container"
SUBDIR = "X-mount.subdir="
_ELSEWHERE = frozenset(("defaults", "idmap", "ridmap"))


def plan(config: Config) -> list[Step]:
    """The mounts in order. Raises InvalidConfig for a type or option that this runtime does not know."""
    return [_step(mount) for mount in config.mounts]


def _step(mount: Mount) -> Step:
    attributes = clear = recursive_attributes = 0
    recursive = bind = False
    propagation = ""
    subdir = next((option[len(SUBDIR):] for option in mount.options if option.startswith(SUBDIR)), "")
    data: list[tuple[str, str | None]] = []
    for option in (option for option in mount.options if option not in _ELSEWHERE and not option.startswith(SUBDIR)):
        plain = option[1:] if option.startswith("r") and option[1:] in {*ATTRIBUTES, *_OPPOSITE} else option
        if option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in ATTRIBUTES:
            attributes |= ATTRIBUTES[option]
        elif option in _OPPOSITE:
            attributes &= ~ATTRIBUTES[_OPPOSITE[option]]
            clear |= ATTRIBUTES[_OPPOSITE[option]]
        elif option in _ATIME:
            attributes = (attributes & ~sys.MOUNT_ATTR__ATIME) | _ATIME[option]
            clear |= sys.MOUNT_ATTR__ATIME
        elif plain != option and plain in ATTRIBUTES:
            recursive_attributes |= ATTRIBUTES[plain]
        elif option in PROPAGATION:
            propagation = option
        else:
            name, equals, value = option.partition("=")
            data.append((name, value if equals else None))
    kind = "bind" if bind or mount.kind == "bind" else mount.kind
    _check_step(mount, kind, subdir, propagation, data)
    mapped = {"idmap", "ridmap"} & set(mount.options)
    return Step(mount.destination, kind, mount.source, attributes, clear, recursive_attributes, recursive,
                tuple(data), propagation, subdir, mount.id_map or (CONTAINER if mapped else None),
                "ridmap" in mount.options)


def _check_step(
    mount: Mount, kind: str, subdir: str, propagation: str, data: list[tuple[str, str | None]]
) -> None:
    if kind == "bind" and data:
        raise InvalidConfig(f"mount of {mount.destination}: a bind has no option {data[0][0]!r}")
    if kind != "bind" and kind not in NEW_TYPES:
        raise InvalidConfig(f"mount of {mount.destination}: type {kind!r} is not supported")
    if kind == "bind" and not mount.source:
        raise InvalidConfig(f"mount of {mount.destination}: a bind needs a source")
    if kind != "bind" and (subdir or mount.id_map):
        raise InvalidConfig(f"mount of {mount.destination}: only binds are id-mapped or of a part")
    if subdir and propagation.endswith("shared"):
        raise InvalidConfig(f"mount of {mount.destination}: a part cannot be shared")


class Root:
    """The root file system through one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """A place inside, symlinks resolved as inside. The root itself for "/"."""
        return sys.openat2(self.fd, path.lstrip("/") or ".", flags, resolve=IN_ROOT)

    def make_folder(self, path: str, mode: int = 0o755, links: int = 0) -> int:
        """An O_PATH descriptor of the folder, made with its parents where missing, also where a symlink points."""
        with contextlib.suppress(FileNotFoundError):
            return self.open(path, os.O_PATH | os.O_DIRECTORY)
        current = os.dup(self.fd)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        try:
            for number, part in enumerate(parts):
                done = "/".join(parts[:number + 1])
                try:
                    following = self.open(done, os.O_PATH | os.O_DIRECTORY)
                except FileNotFoundError:
                    if (target := _link(current, part, links)) is not None:
                        rest = _following("/".join(parts[:number]), target, parts[number + 1:])
                        return self.make_folder(rest, mode, links + 1)
                    following = _make_folder(current, part, mode)
                os.close(current)
                current = following
            return os.dup(current)
        finally:
            os.close(current)

    def make_file(self, path: str, links: int = 0) -> int:
        """An O_PATH descriptor of the file, made empty where missing, also where a symlink points."""
        try:
            return self.open(path)
        except FileNotFoundError:
            parent, name = os.path.split(path.rstrip("/"))
            folder = self.make_folder(parent)
        try:
            if (target := _link(folder, name, links)) is not None:
                return self.make_file(_following(parent, target, []), links + 1)
            made = sys.openat2(folder, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode=0o644)
            os.close(made)
            return sys.openat2(folder, name, os.O_PATH | os.O_NOFOLLOW)
        finally:
            os.close(folder)


def _link(folder: int, name: str, links: int) -> str | None:
    """Where a symlink points; None when it is none. Raises OSError (ELOOP) after too many."""
    try:
        target = os.readlink(name, dir_fd=folder)
    except OSError:
        return None
    if links >= MAX_LINKS:
        raise OSError(errno.ELOOP, f"{name}: {os.strerror(errno.ELOOP)}")
    return target


def _following(parent: str, target: str, rest: list[str]) -> str:
    """The path a symlink in `parent` stands for. ".." in it is the kernel's to resolve, inside the root."""
    return "/".join([target if target.startswith("/") else f"{parent}/{target}", *rest])


def _make_folder(parent: int, name: str, mode: int) -> int:
    with contextlib.suppress(FileExistsError):  # somebody else who has this volume was quicker
        os.mkdir(name, mode, dir_fd=parent)
    return sys.openat2(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=sys.RESOLVE_NO_SYMLINKS)


def build(root: Root, step: Step, mount: int | None = None) -> None:
    """Carry out one step; `mount` is the detached mount when it has been made already (node/runtime/holdings.py).
    Raises OSError naming source and target."""
    try:
        if mount is None:
            mount = open_source(step) if step.kind == "bind" else None
        if step.kind == "bind":
            assert mount is not None
            _bind(root, step, mount)
        else:
            _new(root, step, mount)
    except Misplaced:
        raise
    except OSError as error:
        raise _named(step, error) from error


def _named(step: Step, error: OSError) -> OSError:
    what = f"mount {step.source} on {step.target}" if step.kind == "bind" else f"mount {step.kind} on {step.target}"
    return OSError(error.errno, f"{what}: {os.strerror(error.errno or 0)}")


def _new(root: Root, step: Step, mount: int | None) -> None:
    if step.kind in ("proc", "sysfs"):
        _require_plain_folder(root, step.target)
    if mount is None:
        mount = sys.new_mount(step.kind, list(step.data), step.attributes, step.source)
    place = root.make_folder(step.target)
    _attach(mount, place, step)


def _require_plain_folder(root: Root, path: str) -> None:
    """proc and sysfs are only mounted where they belong: a symlinked /proc would put a fresh, unmasked one elsewhere
    (CVE-2023-27561)."""
    try:
        os.close(sys.openat2(root.fd, path.lstrip("/"), os.O_PATH | os.O_DIRECTORY,
                             resolve=sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_SYMLINKS))
    except FileNotFoundError:
        return


def new_inside(parent: int, name: str, kind: str, data: tuple[tuple[str, str | None], ...], attributes: int) -> None:
    """A new file system on a new folder of a tmpfs that nobody else has seen yet."""
    mount = sys.new_mount(kind, list(data), attributes)
    os.mkdir(name, 0o755, dir_fd=parent)
    place = sys.openat2(parent, name, os.O_PATH | os.O_DIRECTORY, resolve=sys.RESOLVE_NO_SYMLINKS)
    sys.move_mount(mount, place)
    os.close(mount)
    os.close(place)


def open_source(step: Step, userns: int = -1, tree: int | None = None) -> int:
    """A detached copy of what a step binds, for `build`; `userns`: the user namespace that says who owns what in it.
    `tree`: the copy, where there is one already. Raises OSError naming source and target."""
    try:
        if tree is None:
            flags = sys.OPEN_TREE_CLONE | (sys.AT_RECURSIVE if step.recursive else 0)
            tree = _copy_part(step, flags) if step.subdir else sys.open_tree(sys.AT_FDCWD, step.source, flags)
        if userns >= 0:
            _map_ids(tree, step, userns)
        return tree
    except Misplaced:
        raise
    except OSError as error:
        raise _named(step, error) from error


def _bind(root: Root, step: Step, tree: int) -> None:
    # What was copied says what it is, not the path: that may name something else by now.
    is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)
    place = root.make_folder(step.target) if is_folder else root.make_file(step.target)
    _attach(tree, place, step)


def _copy_part(step: Step, flags: int) -> int:
    """The part may be a link that a container made: it is followed inside the source and nowhere else."""
    top = os.open(step.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = sys.openat2(top, step.subdir, os.O_PATH, resolve=sys.RESOLVE_BENEATH | sys.RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise Misplaced(errno.EPERM, f"mount on {step.target}: subpath {step.subdir} leads out of it") from error
        reason = os.strerror(error.errno or 0).lower()
        raise Misplaced(error.errno, f"cannot access path {step.source}/{step.subdir}: {reason}") from error
    finally:
        os.close(top)
    try:
        return sys.open_tree(part, "", flags | sys.AT_EMPTY_PATH)
    finally:
        os.close(part)


def _map_ids(tree: int, step: Step, userns: int) -> None:
    try:
        sys.mount_setattr(tree, set_=sys.MOUNT_ATTR_IDMAP, userns=userns, recursive=step.id_map_below)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Misplaced(errno.EINVAL, f"mount on {step.target}: the file system of {step.source} (or one mounted below "
                        "it) has no id-mapped mounts") from error


def _attach(mount: int, place: int, step: Step) -> None:
    try:
        _refuse_over_proc(place, step)
        if step.kind == "bind" and (step.attributes or step.clear):
            sys.mount_setattr(mount, set_=step.attributes, clear=step.clear)
        if step.recursive_attributes:
            sys.mount_setattr(mount, set_=step.recursive_attributes, recursive=True)
        propagation, recursive = PROPAGATION[step.propagation or "rprivate"]
        sys.mount_setattr(mount, propagation=propagation, recursive=recursive)
        sys.move_mount(mount, place)
    finally:
        os.close(mount)
        os.close(place)


def _refuse_over_proc(place: int, step: Step) -> None:
    if sys.filesystem_type(place) == sys.PROC_SUPER_MAGIC and os.path.normpath(step.target) not in OVER_PROC:
        raise Misplaced(errno.EPERM, f"mount on {step.target}: it lies inside proc")


def has_own_dev(steps: list[Step]) -> bool:
    """Whether /dev is the container's: in one bound from the host nothing may be made."""
    return not any(step.kind == "bind" and os.path.normpath(step.target) == "/dev" for step in steps)


def wanted_devices(devices: tuple[Device, ...]) -> dict[str, Device]:
    """The nodes of every container and those asked for, by path."""
    wanted = {f"/dev/{name}": Device(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)
              for name, major, minor in DEFAULT_DEVICES}
    wanted.update((os.path.normpath(device.path), device) for device in devices)
    return wanted


def make_devices(root: Root, devices: tuple[Device, ...]) -> None:
    """The nodes of every container and those asked for, and the links of /dev. Existing nodes in a fresh /dev are
    replaced only where they are not what they should be."""
    old = os.umask(0)
    try:
        for device in wanted_devices(devices).values():
            parent, name = os.path.split(device.path)
            folder = root.make_folder(parent)
            try:
                make_node(folder, name, device)
            finally:
                os.close(folder)
        folder = root.open("/dev", os.O_PATH | os.O_DIRECTORY)
        for name, target in DEV_LINKS:
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                continue
        os.close(folder)
    finally:
        os.umask(old)


_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_node(folder: int, name: str, device: Device, owner: tuple[int, int] | None = None) -> None:
    """`owner`: instead of the device's own."""
    number = 0 if device.kind == "p" else os.makedev(device.major, device.minor)
    uid, gid = owner or (device.uid, device.gid)
    try:
        # Where it is there already a user namespace's root hears so too, and not that it may make none.
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        try:
            os.mknod(name, _KINDS[device.kind] | device.mode, number, dir_fd=folder)
        except PermissionError:
            hostdevices.bind_node(folder, name, device)
            return
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        return
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_IFMT(there.st_mode) != _KINDS[device.kind] or there.st_rdev != number:
        raise OSError(errno.EEXIST, f"{device.path} exists and is another thing")


def lift(tree: int) -> None:
    """Put the detached copy of the root file system on top of this mount namespace, where it can be mounted on."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sys.move_mount(tree, top)
    os.close(top)


def enter(new: int) -> None:
    """pivot_root(2) into the root file system; the old root is gone afterwards (pivot_root(2), ".", ".")."""
    old = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(new)
    sys.pivot_root(".", ".")
    os.fchdir(old)
    # Slave before detaching: nothing of the unmount may travel back to the host.
    sys.mount("", ".", flags=sys.MS_SLAVE | sys.MS_REC)
    sys.umount(".", sys.MNT_DETACH)
    os.chdir("/")
    os.close(old)
    os.close(new)


def make_readonly(path: str) -> None:
    """After the pivot: `path` becomes read-only by a bind of itself; one that is absent stays so."""
    try:
        mount = sys.open_tree(sys.AT_FDCWD, path, sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
    except FileNotFoundError:
        return
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        sys.mount_setattr(mount, set_=sys.MOUNT_ATTR_RDONLY, recursive=True)
        sys.move_mount(mount, place)
    finally:
        os.close(mount)
        os.close(place)


_COPY = sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH


def _empty_folder() -> int:
    return sys.new_mount("tmpfs", [("nr_blocks", "1"), ("nr_inodes", "1")], sys.MOUNT_ATTR_RDONLY)


class Mask:
    """What lies over masked paths: the container's own null device over files, one empty read-only tmpfs over folders.

    The null device is opened once and checked: a container may have put something else at /dev/null (CVE-2025-31133).
    """

    def __init__(self) -> None:
        self._null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(self._null)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            raise OSError(errno.EINVAL, "/dev/null in the container is not the null device")
        self._empty = _empty_folder()

    def cover(self, path: str) -> None:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            folder = stat.S_ISDIR(os.fstat(place).st_mode)
            mount = self._copy_of_empty() if folder else sys.open_tree(self._null, "", _COPY)
            sys.move_mount(mount, place)
            os.close(mount)
        finally:
            os.close(place)

    def _copy_of_empty(self) -> int:
        try:
            return sys.open_tree(self._empty, "", _COPY)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Before Linux 6.15 a detached mount cannot be cloned.
            return _empty_folder()

    def close(self) -> None:
        os.close(self._null)
        os.close(self._empty)
