"""The validation programs of opencontainers/runtime-tools: other people's idea of what a runtime must do."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, lacking

pytestmark = pytest.mark.root

PROGRAMS = CHECKOUT / ".tools/bin/runtime-tools"
BESIDE = frozenset(("runtimetest", "rootfs-amd64.tar.gz", "rootfs-386.tar.gz"))

FAILING = {
    "delete_resources": "it looks for the group after it has had it deleted",
    "hooks_stdin": "it wants a prestart hook to be told the status created, the specification says creating",
    "linux_cgroups_blkio": "leaf weights went with Linux 5.0; the disk it names is not there",
    "linux_cgroups_relative_blkio": "leaf weights went with Linux 5.0; the disk it names is not there",
    "linux_cgroups_hugetlb": "it looks for a version 1 hierarchy, which a hybrid host does not have",
    "linux_cgroups_relative_hugetlb": "it looks for a version 1 hierarchy, which a hybrid host does not have",
    "linux_cgroups_memory": "kernel memory limits went with Linux 5.16",
    "linux_cgroups_relative_memory": "kernel memory limits went with Linux 5.16",
    "linux_cgroups_network": "the host has neither net_cls nor net_prio",
    "linux_cgroups_relative_network": "the host has neither net_cls nor net_prio",
    "linux_cgroups_pids": "it asks for a limit of 0 and does not accept that 0 is none",
    "linux_cgroups_relative_pids": "it asks for a limit of 0 and does not accept that 0 is none",
    "linux_mount_label": "the kernel has no SELinux",
    "linux_process_apparmor_profile": "the kernel has no AppArmor",
    "misc_props": "its container has no /runtimetest, which it executes",
    "pidfile": "it kills what has ended, which is an error",
    "process_capabilities": "the host's root lacks CAP_SYS_RESOURCE",
    "process_capabilities_fail": "it wants an unknown capability to be an error, which later specifications made a warning",
    "process_rlimits": "the host permits no more open files than it has",
    "process_rlimits_fail": "it says nothing when the error it wants comes",
    "start": "it wants the start of a container without a process to succeed, and says that it must not",
}
"""What cannot pass, here or anywhere. runc 1.1.5 fails all of these too (docs/runtime.md)."""


def passes(name: str, program: Path, home: Path) -> bool:
    home.mkdir()
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", f"./{name}"], cwd=PROGRAMS, check=False,
                          env={**os.environ, "RUNTIME": str(program), "TMPDIR": str(home)}, capture_output=True,
                          text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if re.match(r"(not )?ok\b", line)]
    bad = [line for line in lines if line.startswith("not") and "# SKIP" not in line and "# TODO" not in line]
    plan = re.search(r"^1\.\.(\d+)", done.stdout, re.MULTILINE)
    return done.returncode == 0 and not bad and int(plan[1] if plan else len(lines) or -1) == len(lines)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where root of a user namespace may go too."""
    with tempfile.TemporaryDirectory(prefix="seawall-validation-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.timeout(300)
def test_all_pass_but_those_that_cannot(program: Path, open_folder: Path) -> None:
    if not PROGRAMS.is_dir():
        lacking("the validation programs are not built (dev/gotools)")
    names = sorted({entry.name for entry in PROGRAMS.iterdir()} - BESIDE)
    assert len(names) == 58
    # Those of cgroups use one path after the other; the rest mostly sleep.
    serial = [name for name in names if "cgroup" in name or "delete" in name]
    with ThreadPoolExecutor(6) as pool:
        following = pool.submit(lambda: [passes(name, program, open_folder / name) for name in serial])
        rest = [name for name in names if name not in serial]
        found = dict(zip(rest, pool.map(lambda name: passes(name, program, open_folder / name), rest), strict=True))
        found.update(zip(serial, following.result(), strict=True))
    # Beside six others on a busy machine one of the linux_ns programs now and then finds its container gone (1 of 12;
    # not explained yet). What fails is asked once more, alone.
    again = [name for name, passed in found.items() if not passed and name not in FAILING]
    assert len(again) <= 1, again
    assert all(passes(name, program, open_folder / f"{name}-again") for name in again), again
