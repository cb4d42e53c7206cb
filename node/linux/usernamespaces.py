"""What the user namespace that this process is in has to offer (user_namespaces(7))."""

from __future__ import annotations

LARGEST = 2**31 - 1
"""What the kernel takes where it wants a range of groups (net.ipv4.ping_group_range)."""


def last_group() -> int:
    """The last one that the kernel takes in a range of groups."""
    return min(last_id("/proc/self/gid_map"), LARGEST)


def last_id(path: str = "/proc/self/uid_map") -> int:
    """The last of the ids that follow one another from 0: those after it are nobody's here."""
    with open(path, encoding="ascii") as file:
        extents = sorted((int(words[0]), int(words[2])) for words in (line.split() for line in file))
    end = 0
    for first, count in extents:
        if first > end:
            break
        end = max(end, first + count)
    return max(end - 1, 0)


def initial(path: str = "/proc/self/uid_map") -> bool:
    """Whether it is the one that the kernel starts with, whose root is the host's: every id is itself there."""
    with open(path, encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]


INITIAL = initial()
OVERLAY_OPTIONS = ("redirect_dir=off",) if INITIAL else ("userxattr", "redirect_dir=nofollow")
OVERLAY_XATTRS = "trusted.overlay." if INITIAL else "user.overlay."
"""What overlayfs calls its own attributes: the host's root alone may set trusted ones (overlayfs.rst, "userxattr").
Known before anything changes root, and with it /proc."""

LAST_USER, LAST_GROUP = last_id(), last_id("/proc/self/gid_map")
ANY_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
