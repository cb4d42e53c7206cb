"""Reading a file of a root file system that is not mounted on the host.

The monitor mounts a container's root in its own mount namespace, so the daemon sees only the layers. This looks a path
up the way overlayfs would (upper first, whiteouts hide, opaque folders cut, a symbolic link restarts inside the root).
Every step opens one component with O_NOFOLLOW, so hostile links never lead out.
(kernel: Documentation/filesystems/overlayfs.rst)
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from node.linux.usernamespaces import OVERLAY_XATTRS

MAX_LINKS = 40
MAX_BYTES = 4 * 1024 * 1024
_OPAQUE = f"{OVERLAY_XATTRS}opaque"
_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


class LayeredRoot:
    """The folders of one root, topmost first. One is enough where the snapshotter copies."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = layers

    @classmethod
    def of_mount(cls, kind: str, source: str, options: Sequence[str], cwd: str) -> "LayeredRoot":
        """From what would be mounted: an overlay's options or a bind's source."""
        if kind != "overlay":
            return cls([Path(source)])
        values = dict(option.split("=", 1) for option in options if "=" in option)
        upper = [values["upperdir"]] if "upperdir" in values else []
        lower = values.get("lowerdir", "").split(":")
        return cls([Path(cwd) / folder for folder in [*upper, *lower] if folder])

    def read(self, path: str) -> bytes | None:
        """At most 4 MiB of a regular file; None when there is none."""
        with self._find(path) as found:
            folder, name = found or (-1, None)
            if name is None:
                return None
            return _contents(folder, name)

    def is_folder(self, path: str) -> bool:
        with self._find(path) as found:
            return found is not None and found[1] is None

    @contextmanager
    def _find(self, path: str) -> Iterator[tuple[int, str | None] | None]:
        """(folder fd, name) of what is no folder; (fd, None) of a folder; None when it is not there."""
        with ExitStack() as opened:
            yield self._walk(path, opened)

    def _walk(self, path: str, opened: ExitStack) -> tuple[int, str | None] | None:
        stack = [self._roots(opened)]
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                stack = stack[:-1] or stack
                continue
            level, leaf = _step(stack[-1], name, opened)
            if leaf is not None:
                target = _link(leaf, name)
                if target is None:
                    return None if todo else (leaf, name)
                links += 1
                if links > MAX_LINKS:
                    return None
                stack = stack[:1] if target.startswith("/") else stack
                todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif level:
                stack.append(level)
            else:
                return None
        return (stack[-1][0], None) if stack[-1] else None

    def _roots(self, opened: ExitStack) -> list[int]:
        folders = []
        for layer in self._layers:
            try:
                folders.append(os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue
            opened.callback(os.close, folders[-1])
        return folders


def _step(level: list[int], name: str, opened: ExitStack) -> tuple[list[int], int | None]:
    """The merged folders called `name`, or the folder that holds what is called so and is none."""
    found: list[int] = []
    for folder in level:
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
            break
        if not stat.S_ISDIR(about.st_mode):
            return (found, None) if found else ([], folder)
        try:
            found.append(os.open(name, _FOLDER, dir_fd=folder))
        except OSError:
            break
        opened.callback(os.close, found[-1])
        if _opaque(found[-1]):
            break
    return found, None


def _contents(folder: int, name: str) -> bytes | None:
    """Looked at before it is opened: a device that an image or a container has put there would act upon being opened,
    and no cgroup keeps this process from it. What was looked at is what is opened."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return None
        with Path(f"/proc/self/fd/{place}").open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError:
        return None
    finally:
        os.close(place)


def _opaque(folder: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{folder}", _OPAQUE) == b"y"
    except OSError:
        return False


def _link(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None
