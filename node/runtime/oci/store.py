"""What a container is between two calls: a folder `<root>/<id>` with `state.json`, `config.json` as it was at the
create, and, until the start, the socket on which its first process waits.

Calls that change a container hold a lock on its folder; the kernel lets go of it when they end, however they end.
"""

from __future__ import annotations

import errno
import fcntl
import os

from node.linux.cgroups import CgroupError
from node.runtime import jsontext
from node.runtime.oci.failure import Failure
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.store import Cgroups

STATE, CONFIG, START = "state.json", "config.json", "start.sock"
MAX_STATE = 16 << 20
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Missing(Failure):
    """No container of that name."""

    def __init__(self) -> None:
        super().__init__("container does not exist")


@record
class Made:
    """A container that was made. `began` is the start time of its first process in the kernel's ticks, which tells it
    from a later process of the same number; `cgroup` the path of its group."""

    id: str
    version: str
    bundle: str
    rootfs: str
    pid: int
    began: int
    created: str
    owner: str
    annotations: dict[str, str]
    cgroup: str
    own_pids: bool


class Container:
    """An opened folder, locked or not."""

    def __init__(self, name: str, fd: int) -> None:
        self.id = name
        self.fd = fd

    def lock(self) -> None:
        """Waits for whoever changes it; raises Missing when that one has removed it."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        if os.fstat(self.fd).st_nlink == 0:
            raise Missing

    def path(self, name: str) -> str:
        """Short, however long the root is: a socket's path has 107 bytes."""
        return f"/proc/self/fd/{self.fd}/{name}"

    def read(self) -> Made | None:
        """None: its create has not ended, or was killed."""
        try:
            text = self.load(STATE)
        except FileNotFoundError:
            return None
        try:
            return Made(**jsontext.loads(text))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise Failure(f"container {self.id}: its state is damaged: {error}") from error

    def load(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.read(fd, MAX_STATE)
        finally:
            os.close(fd)

    def save(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        temporary = f".{name}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                     dir_fd=self.fd)
        try:
            while data:
                data = data[os.write(fd, data):]
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write(self, made: Made) -> None:
        fields = {name: getattr(made, name) for name in Made.__annotations__}
        self.save(STATE, jsontext.dumps(fields).encode())

    def waits_for_start(self) -> bool:
        try:
            os.stat(START, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


class Store:
    def __init__(self, root: str, driver: str = "cgroupfs") -> None:
        """`driver`: who makes groups for new containers; whose an old one's is, its path says."""
        self._root = root
        self.driver = driver

    def filters(self) -> str:
        """A folder for compiled seccomp filters; no container's name, for it begins with a comma."""
        return f"{self._root}/,filters"

    def make(self, name: str) -> Container:
        """A new folder, locked. Raises Failure when the name is taken or no name."""
        check(name)
        os.makedirs(self._root, 0o711, exist_ok=True)
        try:
            os.mkdir(f"{self._root}/{name}", 0o700)
        except FileExistsError:
            raise Failure("container with given ID already exists") from None
        container = self.open(name)
        container.lock()
        return container

    def open(self, name: str) -> Container:
        """Raises Missing."""
        check(name)
        try:
            fd = os.open(f"{self._root}/{name}", os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Missing from None
        return Container(name, fd)

    def remove(self, container: Container) -> None:
        """The name is free at once; whoever waits for the lock then finds the folder gone."""
        for entry in os.listdir(container.fd):
            os.unlink(entry, dir_fd=container.fd)
        os.rmdir(f"{self._root}/{container.id}")

    def all(self) -> list[Container]:
        try:
            names = sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                found.append(self.open(name))
            except (Failure, NotADirectoryError):
                continue  # gone meanwhile, or not ours
        return found


def check(name: str) -> None:
    """Raises Failure for what is no container's name."""
    if not name:
        raise Failure("the container ID cannot be empty")
    if len(name) > 1024 or not _LETTERS.issuperset(name) or name in (".", ".."):
        raise Failure(f"invalid container ID format: {name[:100]!r}")


def began(pid: int) -> int:
    """When the process began, in ticks since the boot; 0 when there is none, or only its corpse."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return 0
    # The name in parentheses is the process's own choice and may hold anything.
    fields = text[text.rindex(b")") + 1:].split()
    return 0 if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def status(container: Container, made: Made | None, groups: Cgroups | None) -> str:
    """creating, created, running, paused or stopped."""
    if made is None:
        try:
            fcntl.flock(container.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "creating"
        fcntl.flock(container.fd, fcntl.LOCK_UN)
        return "stopped"
    if began(made.pid) != made.began:
        return "stopped"
    if container.waits_for_start():
        return "created"
    return "paused" if _frozen(made, groups) else "running"


def _frozen(made: Made, groups: Cgroups | None) -> bool:
    try:
        return groups is not None and groups.open(made.cgroup).frozen()
    except CgroupError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTSUP):
            return False
        raise


def open_process(made: Made) -> int:
    """A pidfd of its first process. Raises Failure when that has ended."""
    try:
        fd = os.pidfd_open(made.pid)
    except ProcessLookupError:
        raise Failure("container not running") from None
    if began(made.pid) != made.began:
        os.close(fd)
        raise Failure("container not running")
    return fd
