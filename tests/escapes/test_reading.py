"""What the daemon reads of a tree that an image or a container made: devices and pipes there are never opened."""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.containers.bundle.rootfiles import LayeredRoot
from node.files import comparing
from node.linux import inotify

pytestmark = pytest.mark.root

IN_OPEN = 0x20
KINDS = {"device": stat.S_IFCHR, "disk": stat.S_IFBLK, "pipe": stat.S_IFIFO}


def opened(folder: Path, work: Callable[[], object]) -> set[str]:
    """Names of what was opened in the folder meanwhile. Descriptors that only name a file do not count (inotify(7))."""
    watching = inotify.watch(str(folder), IN_OPEN)
    try:
        work()
        data, names = os.read(watching, 65536), set()
    except BlockingIOError:
        return set()
    finally:
        os.close(watching)
    while data:
        _, _, _, length = struct.unpack_from("iIII", data)
        names.add(data[16:16 + length].rstrip(b"\0").decode())
        data = data[16 + length:]
    return names - {""}


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_users_are_not_read_from_a_device(etc: Path, kind: str) -> None:
    """`rm /etc/passwd; mknod /etc/passwd c 10 130`, and the next `exec -u` would start the host's watchdog."""
    os.mknod(etc / "passwd", KINDS[kind] | 0o666, os.makedev(1, 3))
    assert opened(etc, lambda: LayeredRoot([etc.parent]).read("/etc/passwd")) == set()
    assert LayeredRoot([etc.parent]).read("/etc/passwd") is None


def test_a_file_is_read_and_that_is_noticed(etc: Path) -> None:
    (etc / "passwd").write_text("root:x:0:0::/:\n")
    assert opened(etc, lambda: LayeredRoot([etc.parent]).read("/etc/passwd")) == {"passwd"}


@contextmanager
def swapped(monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[None]:
    """A file becomes a device after it was found to be a file."""
    real = comparing._stat

    def then_swap(directory: int, name: str) -> os.stat_result | None:
        found = real(directory, name)
        if os.fstat(directory).st_ino == place.parent.stat().st_ino and place.is_file():
            before = os.stat(place)
            place.unlink()
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "_stat", then_swap)
        yield


def test_changes_are_found_without_opening_anything(
    etc: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path_factory.mktemp("image")
    for folder in (etc, image):
        (folder / "passwd").write_text("same")
        os.utime(folder / "passwd", ns=(0, 0))

    def compare() -> None:
        own, below = (os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (etc, image))
        list(comparing.changes(own, below, whole=True))

    with swapped(monkeypatch, etc / "passwd"):
        assert opened(etc, compare) == set()
    assert not (etc / "passwd").is_file(), "the swap was never tried"
