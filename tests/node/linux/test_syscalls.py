"""The kernel floor: each call does what it says and fails with the kernel's error and its own name."""

import errno
import os
import threading
from pathlib import Path

import pytest

from node.linux import syscalls


def test_openat2_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    root = tmp_path / "root"
    root.mkdir()
    (root / "outside").write_text("inside")
    (root / "up").symlink_to("../outside")
    (root / "absolute").symlink_to("/outside")
    folder = os.open(root, os.O_PATH)
    for name in ("up", "absolute", "../../outside"):
        with os.fdopen(syscalls.openat2(folder, name, os.O_RDONLY, resolve=syscalls.RESOLVE_IN_ROOT)) as file:
            assert file.read() == "inside"
    with pytest.raises(OSError) as refused:
        syscalls.openat2(folder, "up", os.O_RDONLY, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    assert refused.value.errno == errno.ELOOP
    assert "open up" in str(refused.value)
    os.close(folder)


def test_openat2_goes_on_while_things_are_renamed(tmp_path: Path) -> None:
    """".." inside a root answers EAGAIN when anything was renamed meanwhile."""
    (tmp_path / "a/b").mkdir(parents=True)
    folder, stop = os.open(tmp_path, os.O_PATH), threading.Event()

    def rename() -> None:
        while not stop.is_set():
            os.rename(tmp_path / "a", tmp_path / "c")
            os.rename(tmp_path / "c", tmp_path / "a")

    (tmp_path / "d/e").mkdir(parents=True)
    thread = threading.Thread(target=rename)
    thread.start()
    try:
        for _ in range(2000):
            os.close(syscalls.openat2(folder, "d/e/../../d/e", os.O_PATH, resolve=syscalls.RESOLVE_IN_ROOT))
    finally:
        stop.set()
        thread.join()
        os.close(folder)


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    fd = syscalls.openat2(syscalls.AT_FDCWD, str(tmp_path), os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_close_all_but() -> None:
    if (child := os.fork()) == 0:
        try:
            kept = os.open("/dev/null", os.O_RDONLY)
            other = os.open("/dev/null", os.O_RDONLY)
            syscalls.close_all_but({0, 1, 2, kept})
            os.fstat(kept)
            try:
                os.fstat(other)
            except OSError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_getcwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert syscalls.getcwd() == str(tmp_path)


def test_filesystem_type() -> None:
    fd = os.open("/proc/self", os.O_PATH)
    assert syscalls.filesystem_type(fd) == syscalls.PROC_SUPER_MAGIC
    os.close(fd)
    fd = os.open("/", os.O_PATH)
    assert syscalls.filesystem_type(fd) != syscalls.PROC_SUPER_MAGIC
    os.close(fd)


@pytest.mark.root
def test_a_detached_mount_is_seen_by_nobody() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    fd = syscalls.new_mount("tmpfs", [("size", "1m"), ("mode", "711")], syscalls.MOUNT_ATTR_NODEV)
    assert os.fstat(fd).st_mode & 0o777 == 0o711
    copy = syscalls.open_tree(fd, "", syscalls.AT_EMPTY_PATH)
    os.close(copy)
    os.close(fd)
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.root
def test_a_refused_option_is_named() -> None:
    with pytest.raises(OSError, match="mount tmpfs: option colour"):
        syscalls.new_mount("tmpfs", [("colour", "red")])


@pytest.mark.root
def test_errors_carry_the_call_and_the_kernels_number(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        syscalls.umount(str(tmp_path))
    assert refused.value.errno == errno.EINVAL
    assert str(tmp_path) in str(refused.value)
    with pytest.raises(OSError, match="setns"):
        syscalls.setns(0, syscalls.CLONE_NEWNET)
