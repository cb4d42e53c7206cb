"""Groups given to a container's root: it may divide what it has, and change none of it."""

import os
import subprocess
from pathlib import Path

import pytest

from node.linux.cgroups import detect
from tests.vm.inside.conftest import ROOT

OWNER = 3_000_000
TRIES = """
cd "$1" || exit 1
mkdir inner && echo made
echo +pids >cgroup.subtree_control && echo shared
echo 5 >inner/pids.max && echo "limited $(cat inner/pids.max)"
for file in pids.max memory.max cgroup.max.depth cgroup.freeze; do echo 1 >$file && echo "wrote $file"; done
n=0; path=inner; while mkdir $path/x; do path=$path/x; n=$((n+1)); done; echo "deep $n"
"""


@pytest.mark.root
def test_the_owner_divides_and_lifts_nothing(parent: str) -> None:
    groups = detect()
    group = groups.create(f"{parent}/own", {"pids": {"limit": 50}})
    group.doors().give(OWNER, OWNER)
    folder = ROOT / group.path
    said = subprocess.run(["/bin/busybox", "sh", "-c", TRIES, "-", str(folder)], user=OWNER, group=OWNER,
                          extra_groups=[], capture_output=True, text=True, check=False).stdout.splitlines()  # fmt: skip
    assert said == ["made", "shared", "limited 5", "deep 31"]
    assert (folder / "pids.max").read_text() == "50\n"
    assert os.stat(folder).st_uid == OWNER
    group.kill()
    group.delete()
    assert not Path(folder).exists()
    groups.prune(parent)
