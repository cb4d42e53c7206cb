"""The program that is process 1 under `--init`: forwards signals, reaps what its children leave behind.

It is the host's docker-init (tini) rather than one of our own: a few static kilobytes that everybody has run for years,
where ours would be a Python process of some megabytes in the container's reach, or machine code that nobody reads.
"""

import os
import shutil
import struct
from pathlib import Path

from ocispec.errors import InvalidArgument

PROGRAMS = ("docker-init", "tini-static", "catatonit")
TARGET = "/sbin/docker-init"
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman:/usr/libexec/docker"
_INTERPRETER = 3
_MAX_HEADERS = 64


class UnusableInit(InvalidArgument):
    """The program named for `--init` cannot run in a container."""


def find_init(wanted: str = "") -> str:
    """`wanted`, or the first of the known programs on this host; "" when there is none. Raises UnusableInit."""
    if wanted:
        if not Path(wanted).is_absolute() or not is_static(Path(wanted)):
            raise UnusableInit(f"{wanted}: the init program must be an absolute path of a statically linked executable")
        return wanted
    for name in PROGRAMS:
        found = shutil.which(name, path=_FOLDERS)
        if found and is_static(Path(found)):
            return os.path.realpath(found)
    return ""


def is_static(path: Path) -> bool:
    """An ELF file without an interpreter (elf(5)): a container has none of the host's libraries."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] != 2:
                return False
            order = "<" if head[5] == 1 else ">"
            (offset,) = struct.unpack_from(f"{order}Q", head, 32)
            size, count = struct.unpack_from(f"{order}HH", head, 54)
            file.seek(offset)
            table = file.read(size * min(count, _MAX_HEADERS))
    except (OSError, ValueError, struct.error):
        return False
    kinds = [struct.unpack_from(f"{order}I", table, at)[0] for at in range(0, len(table) - 3, size or 1)]
    return bool(kinds) and _INTERPRETER not in kinds and os.access(path, os.X_OK)
