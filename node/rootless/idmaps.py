"""Which ids a user may have in a user namespace (subuid(5)), and giving them (newuidmap(1), user_namespaces(7))."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

NAMES = {"uid": ("newuidmap", Path("/etc/subuid")), "gid": ("newgidmap", Path("/etc/subgid"))}
PATIENCE = 20.0

Extent = tuple[int, int, int]
"""First id inside, first id outside, how many."""


class NoIds(Exception):
    """Why the user has one id alone; the message says what to do about it."""


def ranges(text: str, user: str, number: int) -> list[tuple[int, int]]:
    """(first, count) of the lines of `user`, by name or number. Lines that are none are left out, as newuidmap does."""
    found = []
    for line in text.splitlines():
        owner, *rest = line.strip().split(":")
        if owner in (user, str(number)) and len(rest) == 2 and all(word.isascii() and word.isdigit() for word in rest):
            first, count = int(rest[0]), int(rest[1])
            if count:
                found.append((first, count))
    return found


def extents(own: int, subordinate: list[tuple[int, int]]) -> list[Extent]:
    """The user is root inside; the subordinate ids follow one after the other."""
    made, inside = [(0, own, 1)], 1
    for first, count in subordinate:
        made.append((inside, first, count))
        inside += count
    return made


def of_user(kind: str, *, files: dict[str, Path] | None = None) -> list[Extent]:
    """`kind`: uid or gid. Raises NoIds."""
    program, file = NAMES[kind]
    file = (files or {}).get(kind, file)
    user, own = os.getuid(), os.getuid() if kind == "uid" else os.getgid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        raise NoIds(f"{file} cannot be read: {error.strerror}") from error
    found = ranges(text, name, user)
    if not found:
        raise NoIds(f"{file} has no line for {name}: add one with `usermod --add-sub{kind}s 100000-165535 {name}`")
    if shutil.which(program) is None:
        raise NoIds(f"{program} is not installed (package uidmap)")
    return extents(own, found)


def give(pid: int) -> str:
    """Write the maps of the user namespace that this process is in. "" when all went well; otherwise the user has one
    id, root's, and this says why. Raises OSError when not even that is permitted."""
    try:
        maps = {kind: of_user(kind) for kind in NAMES}
        for kind, made in maps.items():
            _run(NAMES[kind][0], pid, made)
    except NoIds as error:
        why = str(error)
    else:
        return ""
    proc = Path("/proc", str(pid))
    (proc / "setgroups").write_text("deny")  # or the kernel takes no gid_map from us
    for name, own in (("uid_map", os.getuid()), ("gid_map", os.getgid())):
        (proc / name).write_text(f"0 {own} 1")
    return why


def _run(program: str, pid: int, made: list[Extent]) -> None:
    words = [str(number) for extent in made for number in extent]
    done = subprocess.run([program, str(pid), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=PATIENCE)
    if done.returncode:
        raise NoIds(f"{program}: {done.stderr.strip()[:300] or done.returncode}")
