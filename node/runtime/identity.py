"""The user namespace of a container: made or found by the monitor, entered in the birth, and what its ids are outside.

Ids in config.json are the container's. What is done with the host's rights before the namespace is entered (stdio,
/dev) needs the host's: `UserNamespace.host_uid` and `host_gid`.
"""

from __future__ import annotations

import errno
import fcntl
import os

from node.linux import syscalls
from node.runtime.record import record
from node.runtime.spec import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from node.runtime.spec import Config, Extents


@record
class UserNamespace:
    """A descriptor, and the extents (id inside, id outside, how many) as this process's user namespace sees them."""

    fd: int
    uids: Extents
    gids: Extents

    def host_uid(self, uid: int) -> int:
        return _outside(self.uids, uid, "uid")

    def host_gid(self, gid: int) -> int:
        return _outside(self.gids, gid, "gid")


def _outside(extents: Extents, number: int, kind: str) -> int:
    for inside, outside, count in extents:
        if inside <= number < inside + count:
            return outside + number - inside
    raise InvalidConfig(f"{kind} {number} has no id on the host: the user namespace does not map it")


def of(config: Config) -> UserNamespace | None:
    """The user namespace that the container is to live in; None: ours. Before a pid namespace is entered: /proc must
    mean the processes we fork. Raises OSError and InvalidConfig."""
    path = config.namespaces.get("user")
    if path is None:
        return None
    if not path:
        assert config.id_map is not None
        uids, gids = config.id_map
        return UserNamespace(make(uids, gids), uids, gids)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if kind(fd) != syscalls.CLONE_NEWUSER:
        raise InvalidConfig(f"linux.namespaces: {path} is no user namespace")
    uids, gids = config.id_map or _maps_of(fd)
    return UserNamespace(fd, uids, gids)


def kind(fd: int) -> int:
    """CLONE_NEW… of the namespace behind a descriptor, 0 of anything else."""
    try:
        return fcntl.ioctl(fd, syscalls.NS_GET_NSTYPE)
    except OSError:
        return 0


def owns(user: int, namespace: int) -> bool:
    """Whether that user namespace is the owner of the other namespace."""
    try:
        owner = fcntl.ioctl(namespace, syscalls.NS_GET_USERNS)
    except PermissionError:
        return False  # owned by one above ours
    try:
        return os.path.sameopenfile(owner, user)
    finally:
        os.close(owner)


def make(uids: Extents, gids: Extents) -> int:
    """A new user namespace with these maps, as a descriptor. It holds nobody. Raises OSError."""
    return _make(uids, gids, 0, ("user",))[0]


def make_with_network(uids: Extents, gids: Extents, prepare: Callable[[], None]) -> tuple[int, ...]:
    """The same, and a new network namespace that it owns, in which its root has done `prepare`. Raises OSError."""
    return _make(uids, gids, syscalls.CLONE_NEWNET, ("user", "net"), prepare)


def _make(
    uids: Extents, gids: Extents, more: int, kinds: tuple[str, ...], last: Callable[[], None] | None = None
) -> tuple[int, ...]:
    child = _Inhabitant(None, more, next((outside for inside, outside, _ in uids if inside == 0), 0), last)
    try:
        for name, extents in (("uid_map", uids), ("gid_map", gids)):
            try:
                with open(f"/proc/{child.pid}/{name}", "w") as file:
                    file.write("".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents))
            except OSError as error:
                text = f"the host does not permit this {name}: {os.strerror(error.errno or 0).lower()}"
                raise OSError(error.errno, text) from error
        return tuple(os.open(f"/proc/{child.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds)
    finally:
        child.let_go()


def _maps_of(fd: int) -> tuple[Extents, Extents]:
    child = _Inhabitant(fd)
    try:
        return _map(child.pid, "uid_map"), _map(child.pid, "gid_map")
    finally:
        child.let_go()


def _map(pid: int, name: str) -> Extents:
    with open(f"/proc/{pid}/{name}") as file:
        rows = [line.split() for line in file]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


class _Inhabitant:
    """A process that does nothing in a user namespace: a new one, which `owner` shall own, or that of the descriptor.

    It still sees the host's files. So nobody but its maker may look into it, and it is not root's: whoever is root of
    the host's user namespace, without any capability (a container in the host's pid and user namespaces), has all of
    them over what root owns (user_namespaces(7)).

    `last`: what it does as root of the namespace when it is let go, with its maps written.
    """

    def __init__(
        self, fd: int | None, more: int = 0, owner: int = 0, last: Callable[[], None] | None = None
    ) -> None:
        made, say_made = os.pipe2(os.O_CLOEXEC)
        wait, self._let_go = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._let_go)
                if fd is None:
                    privileged = os.geteuid() == 0
                    if privileged:
                        syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
                        os.seteuid(owner)
                        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
                    # The user namespace comes first, whatever the order of the flags: it owns the others.
                    syscalls.unshare(syscalls.CLONE_NEWUSER | more)
                    if not privileged:
                        # Or an ordinary user's maps could not be written. What it sees is that user's anyway.
                        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
                else:
                    # Root of that namespace is whoever is in it already.
                    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
                    syscalls.setns(fd, syscalls.CLONE_NEWUSER)
                os.write(say_made, b".")
                os.read(wait, 1)
                if last is not None:
                    become_root()
                    last()
            finally:
                os._exit(0)
        os.close(say_made)
        os.close(wait)
        there = os.read(made, 1)
        os.close(made)
        if not there:
            self.let_go()
            raise OSError(errno.EPERM, "this host lets us neither make nor enter a user namespace")

    def let_go(self) -> None:
        os.close(self._let_go)
        os.waitpid(self.pid, 0)


def enter(user: UserNamespace) -> None:
    """Become root of it, without any of the host's rights. There is no way back. Raises OSError."""
    syscalls.setns(user.fd, syscalls.CLONE_NEWUSER)
    become_root()


def become_root() -> None:
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # A change of identity clears the death signal and, where the kernel is set so, makes dumpable.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
