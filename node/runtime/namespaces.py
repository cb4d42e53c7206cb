"""The namespaces of config.json: those of others are joined, the rest is made."""

from __future__ import annotations

import os

from node.linux import syscalls as sys
from node.runtime import identity
from node.runtime.spec import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.spec import Config

FLAGS = {"network": sys.CLONE_NEWNET, "ipc": sys.CLONE_NEWIPC, "uts": sys.CLONE_NEWUTS, "mount": sys.CLONE_NEWNS,
         "cgroup": sys.CLONE_NEWCGROUP, "pid": sys.CLONE_NEWPID}
_AFTER_THE_FORK = ("network", "ipc", "uts", "mount")


def join(config: Config, user: UserNamespace | None) -> set[str]:
    """Enter those that are given by path; of a pid namespace this means that the next child is to be in it. Returns the
    kinds that the container's user namespace does not own. Raises OSError, InvalidConfig."""
    # Every path is opened before the first is entered: afterwards /proc may mean another one.
    given = [(kind, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in config.namespaces.items()
             if path and kind != "user"]
    foreign = {kind for kind in FLAGS if kind not in config.namespaces}
    for kind, path, fd in given:
        if identity.kind(fd) != FLAGS[kind]:
            raise InvalidConfig(f"linux.namespaces: {path} is no {kind} namespace")
        if user is None or not identity.owns(user.fd, fd):
            foreign.add(kind)
    # With the host's rights, which reach into every user namespace below.
    for kind, _, fd in given:
        sys.setns(fd, FLAGS[kind])
        os.close(fd)
    return foreign


def new(config: Config) -> int:
    """Flags of those that the container's process makes for itself, all but its cgroup namespace: that shows as root
    where it stands when it is made."""
    flags = 0
    for kind in _AFTER_THE_FORK:
        if config.namespaces.get(kind) == "":
            flags |= FLAGS[kind]
    return flags

