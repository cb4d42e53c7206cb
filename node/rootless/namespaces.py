"""The node's namespaces: made by a child that stays as long as its maps are written, found again by their numbers."""

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from node.linux import syscalls
from node.linux.netlink import Netlink
from node.rootless import idmaps

KINDS = {"user": syscalls.CLONE_NEWUSER, "net": syscalls.CLONE_NEWNET, "ipc": syscalls.CLONE_NEWIPC,
         "mnt": syscalls.CLONE_NEWNS}  # fmt: skip
"""In the order in which they are entered: only who is in the user namespace may enter the others."""

BOOT = Path("/proc/sys/kernel/random/boot_id")
NOTE = "namespaces.json"
RESOLV = "/etc/resolv.conf"

Held = dict[str, int]
"""A descriptor for each of KINDS."""


class Forbidden(Exception):
    """This host lets the user make no user namespace; the message says what was tried."""


def make(resolv: bytes) -> tuple[Held, str]:
    """New ones, and why the user has one id alone ("": it has more). `resolv` is what its resolv.conf says.

    Raises Forbidden, OSError.
    """

    def birth() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
        except OSError as error:
            raise Forbidden(f"user namespaces are not permitted here ({error.strerror}): see sysctl "
                            "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
                            "kernel.apparmor_restrict_unprivileged_userns") from error

    return _through_a_child(birth, idmaps.give, lambda: _furnish(resolv, fresh=True))


def again(found: Held, resolv: bytes) -> Held:
    """What is left of earlier ones, with a mount namespace made anew. Takes the descriptors over. Raises OSError."""

    def birth() -> None:
        for kind in ("user", "net", "ipc"):
            syscalls.setns(found[kind], KINDS[kind])

    made, _ = _through_a_child(birth, lambda _pid: "", lambda: _furnish(resolv, fresh=False))
    for fd in found.values():
        os.close(fd)
    return made


def enter(held: Mapping[str, int]) -> None:
    """This process, which has one thread. Its working folder is found again by name. Raises OSError."""
    here = os.getcwd()
    for kind, flag in KINDS.items():
        syscalls.setns(held[kind], flag)
    os.chdir(here)


def _furnish(resolv: bytes, *, fresh: bool) -> None:
    flags = syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC if fresh else 0)
    syscalls.unshare(flags)
    # What the host mounts later is seen, what we mount is not.
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
    if resolv:
        _say_resolv(resolv)
    if fresh:
        with Netlink() as net:
            net.set_up(net.index("lo"))


def _say_resolv(text: bytes) -> None:
    """Over the host's file, whose servers may be on its loopback. Where that is a link into a folder that a resolver
    keeps (/run/systemd/resolve), over the folder: a file that is replaced would lose what is mounted on it."""
    real = os.path.realpath(RESOLV)
    if not os.path.exists(real):
        return
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
    mount = syscalls.new_mount("tmpfs", [("size", "64k"), ("mode", "0755")], attributes)
    name = os.path.basename(real)
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=mount)
    os.write(file, text)
    os.close(file)
    if os.path.dirname(real) != os.path.dirname(RESOLV):
        place = os.open(os.path.dirname(real), os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(mount, place)
    else:
        # A detached mount has no place to be bound from before Linux 6.15: it is put over the folder for a moment.
        place = os.open(os.path.dirname(real), os.O_PATH | os.O_CLOEXEC)
        target = os.open(real, os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(mount, place)
        tree = syscalls.open_tree(mount, name, syscalls.OPEN_TREE_CLONE)
        syscalls.umount(os.path.dirname(real), syscalls.MNT_DETACH)
        syscalls.move_mount(tree, target)
        os.close(tree)
        os.close(target)
    os.close(place)
    os.close(mount)


def _through_a_child(
    birth: Callable[[], None], give: Callable[[int], str], furnish: Callable[[], None]
) -> tuple[Held, str]:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            _be_child(theirs, birth, furnish)
        finally:
            os._exit(0)
    theirs.close()
    try:
        with ours:
            _word(ours)
            why = give(child)
            ours.sendall(b"mapped\n")
            _word(ours)
            return _open_all(Path("/proc", str(child))), why
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _be_child(channel: socket.socket, birth: Callable[[], None], furnish: Callable[[], None]) -> None:
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        birth()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # or its /proc/<pid> would be closed to the holder
        channel.sendall(b"made\n")
        channel.recv(64)
        furnish()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        channel.sendall(b"done\n")
        channel.recv(64)
    except Forbidden as error:
        channel.sendall(f"forbidden {error}\n".encode())
    except OSError as error:
        channel.sendall(f"failed {error.errno} {error.strerror}\n".encode())


def _word(channel: socket.socket) -> None:
    said = channel.recv(4096).decode(errors="replace").strip()
    kind, _, rest = said.partition(" ")
    if kind == "forbidden":
        raise Forbidden(rest)
    if kind not in ("made", "done"):
        number, _, text = rest.partition(" ")
        raise OSError(int(number) if number.isdigit() else errno.EIO, f"the node's namespaces: {text or 'cut short'}")


def _open_all(proc: Path) -> Held:
    return {kind: os.open(proc / "ns" / kind, os.O_RDONLY | os.O_CLOEXEC) for kind in KINDS}


# -- found again


def note(folder: Path, held: Mapping[str, int]) -> None:
    """For a holder to come, should this one be killed."""
    numbers = {kind: os.fstat(fd).st_ino for kind, fd in held.items()}
    beside = folder / f"{NOTE}.new"
    beside.write_text(json.dumps({"boot": BOOT.read_text().strip(), **numbers}))
    beside.replace(folder / NOTE)


def left_behind(folder: Path) -> Held | None:
    """Those of an earlier holder, where a process is in them still; None: nobody is."""
    try:
        noted = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(noted, dict) or noted.get("boot") != BOOT.read_text().strip():
        return None
    for pid in inhabitants(noted.get("user")):
        proc = Path("/proc", str(pid))
        with contextlib.suppress(OSError):
            found = _open_all(proc)
            # Of a container's process the network and IPC are the container's: another one is looked for.
            if all(os.fstat(found[kind]).st_ino == noted.get(kind) for kind in ("user", "net", "ipc")):
                os.close(found.pop("mnt"))
                return found
            for fd in found.values():
                os.close(fd)
    return None


def inhabitants(number: object) -> Iterator[int]:
    """Pids of the processes in the user namespace of that number; of none that are in one of their own below it."""
    wanted = f"user:[{number}]"
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/user") == wanted:
                    yield int(name)
