"""Who a container's process is: `user[:group]` looked up in the image's own /etc/passwd and /etc/group.

A number is always an id, never a name (CVE-2026-30892), and the files are the container's, so they are hostile: bad
lines are skipped. Messages are Docker's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ocispec.errors import InvalidArgument

MAX_ID = 2**31 - 1


class UnknownUser(InvalidArgument):
    """The user or group is not in the image's files."""


@dataclass(frozen=True, slots=True)
class ProcessUser:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve_user(text: str, extra_groups: Sequence[str], read: Callable[[str], bytes | None]) -> ProcessUser:
    """`read` gives the bytes of a file inside the root, or None. Raises UnknownUser."""
    user, _, group = text.partition(":")
    entry = _passwd_entry(user or "0", read)
    if entry is None:
        if not _is_number(user):
            raise UnknownUser(f"unable to find user {user}: no matching entries in passwd file")
        entry = ("", _identity(user), 0, "/")
    name, uid, gid, home = entry
    lines = list(_group_entries(read("/etc/group")))
    groups: list[int] = []
    if group:
        gid = _group(group, lines)
    elif name:
        groups = [identity for _, identity, members in lines if name in members and identity != gid]
    groups += [found for extra in extra_groups if (found := _group(extra, lines)) not in groups]
    return ProcessUser(uid, gid, tuple(dict.fromkeys(groups)), home)


def _passwd_entry(user: str, read: Callable[[str], bytes | None]) -> tuple[str, int, int, str] | None:
    number = _identity(user) if _is_number(user) else None
    for fields in _entries(read("/etc/passwd"), 7):
        matches = fields[0] == user if number is None else fields[2] == str(number)
        if matches and _is_identity(fields[2]) and _is_identity(fields[3]):
            return fields[0], _identity(fields[2]), _identity(fields[3]), fields[5] or "/"
    if number == 0:
        return "root", 0, 0, "/root" if read("/etc/passwd") else "/"
    return None


def _group(group: str, lines: Sequence[tuple[str, int, tuple[str, ...]]]) -> int:
    if _is_number(group):
        return _identity(group)
    for name, identity, _ in lines:
        if name == group:
            return identity
    raise UnknownUser(f"unable to find group {group}: no matching entries in group file")


def _group_entries(data: bytes | None) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for fields in _entries(data, 4):
        if fields[0] and _is_identity(fields[2]):
            yield fields[0], _identity(fields[2]), tuple(filter(None, fields[3].split(",")))


def _entries(data: bytes | None, count: int) -> Iterator[list[str]]:
    for line in (data or b"").decode("utf-8", "replace").split("\n"):
        fields = line.strip().split(":")
        if not line.startswith("#") and len(fields) >= 3:
            yield [*fields, *[""] * (count - len(fields))]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_identity(text: str) -> bool:
    return _is_number(text) and len(text) <= 10 and int(text) <= MAX_ID


def _identity(text: str) -> int:
    if not _is_identity(text):
        raise UnknownUser("uids and gids must be in range 0-2147483647")
    return int(text)
