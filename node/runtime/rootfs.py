"""The container's file tree: mounts (`mountplan`) carried out (`build`) by descriptors, never by path twice.

The root file system is hostile: any component may be a symlink to anywhere. Every place inside it is found with
openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) from a descriptor of the root, every mount is made detached and moved
onto the descriptor of its place (CVE-2019-19921, -2021-30465, -2023-27561, -2024-45310 and their kin).
"""

from __future__ import annotations

import errno
import os
import stat

from node.linux import syscalls as sys
from node.runtime.mountplan import PROPAGATION, Step, is_dev

IN_ROOT = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS

# What may lie over a file of /proc: all that tools such as lxcfs replace. Anything else there could feed our own writes
# to /proc into another file (CVE-2019-19921).
OVER_PROC = frozenset(("/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
                       "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid"))
MAX_LINKS = 40

class Misplaced(OSError):
    """Nothing may be mounted there; the message says why."""


class Root:
    """The root file system through one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """A place inside, symlinks resolved as inside. The root itself for "/"."""
        return sys.openat2(self.fd, path.lstrip("/") or ".", flags, resolve=IN_ROOT)

    def make_folder(self, path: str, mode: int = 0o755, links: int = 0) -> int:
        """An O_PATH descriptor of the folder, made with its parents where missing, also where a symlink points."""
        try:
            return self.open(path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
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

    def make_plain_folder(self, path: str) -> int:
        """As `make_folder`, but refuses symlinks on the way. proc and sysfs are only mounted where they belong: a
        symlinked /proc would put a fresh, unmasked one elsewhere (CVE-2023-27561)."""
        try:
            return self.open_plain(path, os.O_DIRECTORY)
        except FileNotFoundError:
            os.close(self.make_folder(path))
            return self.open_plain(path, os.O_DIRECTORY)

    def open_plain(self, path: str, flags: int = 0) -> int:
        """A place that no symlink leads to."""
        return sys.openat2(self.fd, path.lstrip("/") or ".", os.O_PATH | flags,
                           resolve=sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_SYMLINKS)

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
    try:  # noqa: SIM105 -- contextlib would cost a start of seawall-runtime more than all lines here
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # somebody else who has this volume was quicker
    return sys.openat2(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=sys.RESOLVE_NO_SYMLINKS)


def build(root: Root, step: Step, mount: int | None = None, *, first: bool = False) -> None:
    """Carry out one step; `mount` is the detached mount when it has been made already (node/runtime/holdings.py).
    Raises OSError naming source and target."""
    try:
        if step.remount:
            _remount(root, step)
        elif step.kind == "bind":
            _bind(root, step, open_source(step) if mount is None else mount)
        else:
            _new(root, step, mount)
            if mount is not None and is_dev(step) and not first:
                _renew(root, step)
    except Misplaced:
        raise
    except OSError as error:
        raise _named(step, error) from error


def new_mount(step: Step) -> int:
    """A detached mount of a new file system. /dev stays writable until it is filled (`covers.finish_dev`)."""
    attributes = step.attributes & ~sys.MOUNT_ATTR_RDONLY if is_dev(step) else step.attributes
    return sys.new_mount(step.kind, list(step.data), attributes, step.source)


def _named(step: Step, error: OSError) -> OSError:
    reason = os.strerror(error.errno or 0)
    if step.kind == "bind":
        return OSError(error.errno, f"mount {step.source} on {step.target}: {reason}")
    option = (error.strerror or "").partition(": ")[2]
    return OSError(error.errno, f"mount {step.kind} on {step.target}: {option or reason}")


def _new(root: Root, step: Step, mount: int | None) -> None:
    if step.kind in ("proc", "sysfs"):
        place = root.make_plain_folder(step.target)
    else:
        place = root.make_folder(step.target)
    try:
        mount = new_mount(step) if mount is None else mount
        if step.copy_up:
            from node.runtime import copyup

            copyup.copy(sys.openat2(place, ".", os.O_RDONLY | os.O_DIRECTORY), mount)
    except BaseException:
        os.close(place)
        raise
    if step.recursive_attributes or step.recursive_clear:
        sys.mount_setattr(mount, set_=step.recursive_attributes, clear=step.recursive_clear, recursive=True)
    _attach(mount, place, step)


def _renew(root: Root, step: Step) -> None:
    """A copy in its place: mountinfo has the mounts in the order of their making, which is to be that of config.json
    (config.md, mounts), also where one had to be made ahead of the others. Not for free: the kernel waits for all
    readers of the mount that goes."""
    place = root.open(step.target)
    copy = sys.open_tree(place, "", sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH)
    sys.umount(f"/proc/self/fd/{place}", sys.MNT_DETACH)
    os.close(place)
    place = root.open(step.target)
    sys.move_mount(copy, place)
    os.close(copy)
    os.close(place)


def _remount(root: Root, step: Step) -> None:
    """New attributes, and for other than binds new options of the file system, of what is mounted there: not of what a
    link of the image leads to, which might be /sys made writable."""
    place = root.open_plain(step.target)
    try:
        _refuse_over_proc(place, step)
        if step.data:
            sys.reconfigure(place, list(step.data))
        if step.attributes or step.clear:
            sys.mount_setattr(place, set_=step.attributes, clear=step.clear)
        if step.recursive_attributes or step.recursive_clear:
            sys.mount_setattr(place, set_=step.recursive_attributes, clear=step.recursive_clear, recursive=True)
        for word in step.propagation:
            kind, recursive = PROPAGATION[word]
            sys.mount_setattr(place, propagation=kind, recursive=recursive)
    finally:
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
        if step.attributes or step.clear:
            sys.mount_setattr(tree, set_=step.attributes, clear=step.clear)
        if step.recursive_attributes or step.recursive_clear:
            sys.mount_setattr(tree, set_=step.recursive_attributes, clear=step.recursive_clear, recursive=True)
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
        for word in step.propagation or ("rprivate",):
            propagation, recursive = PROPAGATION[word]
            sys.mount_setattr(mount, propagation=propagation, recursive=recursive)
        sys.move_mount(mount, place)
    finally:
        os.close(mount)
        os.close(place)


def _refuse_over_proc(place: int, step: Step) -> None:
    if sys.filesystem_type(place) == sys.PROC_SUPER_MAGIC and os.path.normpath(step.target) not in OVER_PROC:
        raise Misplaced(errno.EPERM, f"mount on {step.target}: it lies inside proc")
