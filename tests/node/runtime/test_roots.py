"""The root file system of a container with a user namespace: mapped, writable, and 0-based on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root
FIRST = 0x7100_0000
BELOW = {"f": 0, "web": 33, "d/y": 33}

_PROGRAM = """
import json, os, sys
from node.linux import capabilities, syscalls
from node.runtime import identity, roots
mount, target, first, work = json.loads(sys.argv[1])
before = capabilities.current()
extents = ((0, first, 65536),)
user = identity.make(extents, extents)
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
roots.mount_root(mount, target, identity.UserNamespace(user, extents, extents))
assert capabilities.current() == before
child = os.fork()
if child == 0:
    os.chdir(target)  # the folders above are closed to the container's root
    syscalls.setns(user, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execv("/bin/sh", ["sh", "-ec", work])
status = os.waitpid(child, 0)[1]
held = [line.split()[4] for line in open("/proc/self/mountinfo") if line.split()[4].startswith(target)]
roots.unmount_root(target)
print("mounts", held)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def tree(folder: Path) -> Path:
    for name, owner in BELOW.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        os.chown(file, owner, owner)
    return folder


def run(mount: dict[str, Any], target: Path, work: str) -> str:
    argument = json.dumps([mount, str(target), FIRST, work])
    done = subprocess.run([sys.executable, "-c", _PROGRAM, argument], capture_output=True, text=True, timeout=30,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def overlay(tmp_path: Path) -> dict[str, Any]:
    tree(tmp_path / "s/l/1")
    (tmp_path / "s/l/2/e").mkdir(parents=True)
    (tmp_path / "s/c/upper").mkdir(parents=True)
    (tmp_path / "s/c/work").mkdir()
    options = ["lowerdir=2:1", "upperdir=../c/upper", "workdir=../c/work", "redirect_dir=off", "index=off"]
    return {"type": "overlay", "source": "overlay", "options": options, "cwd": str(tmp_path / "s/l")}


def test_files_belong_to_the_containers_ids_and_stay_so_on_disk(tmp_path: Path) -> None:
    mount = overlay(tmp_path)
    said = run(mount, tmp_path / "root", "stat -c '%n %u %g' f web d/y; echo more >> web; touch new; chown 5:6 new; "
               "rm d/y; rmdir d; mkdir d; mv e e2; stat -c '%n %u' web new")
    assert said.split("mounts")[0].split("\n")[:5] == ["f 0 0", "web 33 33", "d/y 33 33", "web 33", "new 5"]
    upper = tmp_path / "s/c/upper"
    owners = {entry.name: (entry.stat(follow_symlinks=False).st_uid, entry.stat().st_gid) for entry in os.scandir(upper)}
    assert owners == {"web": (33, 33), "new": (5, 6), "d": (0, 0), "e": (0, 0), "e2": (0, 0)}
    assert os.getxattr(upper / "d", "trusted.overlay.opaque") == b"y"
    assert (upper / "e").lstat().st_rdev == 0
    assert (tmp_path / "s/l/1/web").read_text() == "web"


def test_the_helping_mount_is_gone(tmp_path: Path) -> None:
    said = run(overlay(tmp_path), tmp_path / "root", "true")
    assert said.splitlines()[-1] == f"mounts ['{tmp_path / 'root'}']"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_root_without_layers_is_mapped_too(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    mount = {"type": "bind", "source": str(source), "options": ["rw", "rbind"], "cwd": ""}
    assert run(mount, tmp_path / "root", "stat -c %u web; touch new").startswith("33\n")
    assert (source / "new").stat().st_uid == 0
    mount["options"] = ["ro", "rbind"]
    assert run(mount, tmp_path / "root", "! touch other 2>/dev/null").startswith("mounts")


def test_ids_outside_of_the_range_are_nobodys(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    os.chown(source / "f", 70_000, 70_000)
    mount = {"type": "bind", "source": str(source), "options": ["rw", "rbind"], "cwd": ""}
    assert run(mount, tmp_path / "root", "stat -c %u f; ! chown 0 f 2>/dev/null").startswith("65534\n")


def test_a_file_system_without_mappings_is_refused_in_words(tmp_path: Path) -> None:
    mount = {"type": "bind", "source": "/proc", "options": ["rw", "rbind"], "cwd": ""}
    argument = json.dumps([mount, str(tmp_path / "root"), FIRST, "true"])
    done = subprocess.run([sys.executable, "-c", _PROGRAM, argument], capture_output=True, text=True, timeout=30,
                          check=False)
    assert "the file system of /proc has no id-mapped mounts" in done.stderr
    assert "--userns=host" in done.stderr
