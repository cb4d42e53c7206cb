"""`--userns`: whether a container has ids of its own, by what it asks for.

The default is a range of its own. What asks for the host's powers or shares the host's namespaces has the host's ids
too, because with others it would not do what it was asked for; the answer to the create says so where it is not
obvious.
"""

import re
from dataclasses import dataclass

from node.containers.bundle.baseline import EVERYTHING
from node.containers.errors import InvalidSpec
from node.containers.model import CreateSpec
from node.userns.ranges import SIZE

LARGEST = 1 << 26
"""Ids of a range that is chosen by the number of a user: more would soon leave none for others."""

HOST, PRIVATE, AUTO = "host", "private", "auto"
_AUTO_SIZE = re.compile(r"auto:size=([0-9]{1,9})")
GIVING = frozenset({"shared", "rshared"})

OF_THE_HOST = frozenset(
    {"AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "IPC_LOCK", "LINUX_IMMUTABLE",
     "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "PERFMON", "SYSLOG", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT",
     "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"}
)  # fmt: skip
"""Capabilities that the kernel asks of its first user namespace alone: in another they are words (capabilities(7),
user_namespaces(7))."""


@dataclass(frozen=True, slots=True)
class Mode:
    own: bool
    size: int = SIZE
    told: str = ""
    """What the user should know."""

    @property
    def word(self) -> str:
        """As it is asked for."""
        if not self.own:
            return HOST
        return PRIVATE if self.size == SIZE else f"{AUTO}:size={self.size}"


def parse(text: str) -> Mode | None:
    """None: nothing was asked for. Raises InvalidSpec."""
    if not text:
        return None
    if text == HOST:
        return Mode(own=False)
    if text in (PRIVATE, AUTO):
        return Mode(own=True)
    if match := _AUTO_SIZE.fullmatch(text):
        size = int(match[1])
        if size < SIZE:
            raise InvalidSpec(f"--userns {text}: a container has at least {SIZE} ids")
        return Mode(True, _whole(size))
    raise InvalidSpec(f'invalid USER mode: "{text[:60]}": it is host, private, auto or auto:size=NUMBER')


def choose(spec: CreateSpec, *, default: bool, foreign: str = "") -> Mode:
    """What is asked for, or the node's `default`, where what else is asked for permits. `foreign`: another runtime than
    ours that makes the container. Raises InvalidSpec where that
    contradicts a mode that was named."""
    asked = parse(spec.namespaces.user)
    if asked is not None and not asked.own:
        return asked
    if asked is None and not default:
        return Mode(own=False)
    if shared := _shares(spec):
        if asked is not None:
            raise InvalidSpec(f"conflicting options: --userns {spec.namespaces.user} and {shared}: it has the host's "
                              "user namespace")
        return Mode(own=False)
    mode = asked if asked is not None and ":" in spec.namespaces.user else _wide_enough(spec)
    if foreign:
        return _host_after_all(spec, asked, f"only this node's own runtime makes containers with others, not {foreign}")
    if reason := _powers(spec, mode.size):
        return _host_after_all(spec, asked, reason)
    return mode


def _whole(size: int) -> int:
    return -(-size // SIZE) * SIZE


def _numbers(spec: CreateSpec) -> list[int]:
    """Users and groups that are asked for by number."""
    user, _, group = spec.user.partition(":")
    return [int(word) for word in (user, group, *spec.security.group_add) if word.isascii() and word.isdigit()]


def _wide_enough(spec: CreateSpec) -> Mode:
    """A range that has the ids that are asked for, if it is not too large."""
    size = _whole(max(_numbers(spec), default=0) + 1)
    return Mode(True, size if size <= LARGEST else SIZE)


def _host_after_all(spec: CreateSpec, asked: Mode | None, reason: str) -> Mode:
    if asked is not None:
        raise InvalidSpec(f"conflicting options: --userns {spec.namespaces.user}: {reason}")
    return Mode(own=False, told=f"The container has the host's user namespace: {reason}")


def _shares(spec: CreateSpec) -> str:
    """Nobody expects another user namespace there: what one looks for is the host."""
    names = spec.namespaces
    if spec.security.privileged:
        return "--privileged"
    kinds = (("--network", spec.network.mode), ("--pid", names.pid), ("--ipc", names.ipc))
    return next((f"{flag} host" for flag, mode in kinds if mode == "host"), "")


def _powers(spec: CreateSpec, size: int) -> str:
    added = {name.upper().removeprefix("CAP_") for name in spec.security.cap_add}
    if added & EVERYTHING:
        return "--cap-add ALL has capabilities that work there alone"
    if there := sorted(added & OF_THE_HOST):
        return f"capability {', '.join(there)} works there alone"
    if any(mount.propagation in GIVING for mount in spec.mounts):
        return "a bind with shared propagation gives mounts back from there alone"
    if beyond := [number for number in _numbers(spec) if number >= size]:
        return f"user or group {beyond[0]} is not among the {size} ids of its range"
    return ""
