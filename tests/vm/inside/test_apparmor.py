"""AppArmor, which this machine's kernel lacks: the node's profile around a container and an exec."""

import subprocess
from pathlib import Path

import pytest

from node.containers import apparmor
from node.containers.monitor import StartFailed
from node.linux import capabilities, labels
from tests.node.runtime.conftest import Boxes, boxes, launcher
from tests.node.runtime.test_execs import run

__all__ = ("boxes", "launcher")
ENFORCED = "seawall-default (enforce)\n"
EVERY = capabilities.current()["permitted"]
SECURITY = Path("/sys/kernel/security")


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    if not (SECURITY / "apparmor").exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", str(SECURITY)], check=True)
    assert labels.has_apparmor()
    apparmor.load_default()
    assert labels.default_apparmor() == apparmor.NAME
    apparmor.load_default()


async def test_a_container_and_its_execs(boxes: Boxes) -> None:
    """Every start costs seconds in this machine: few containers, much asked of each."""
    monitor = await boxes("sleep", "60", apparmorProfile=apparmor.NAME, noNewPrivileges=False).create()
    await monitor.start()
    assert Path(f"/proc/{monitor.pid}/attr/current").read_text() == ENFORCED
    for fields in ({}, {"user": {"uid": 1000, "gid": 1000}}):
        said = await run(monitor, "cat", "/proc/self/attr/current", apparmorProfile=apparmor.NAME, **fields)
        assert said == (0, ENFORCED.encode())
    with pytest.raises(StartFailed, match="label 'exec nobodys': no profile of that name is loaded"):
        await run(monitor, "true", apparmorProfile="nobodys")


async def test_it_holds_where_capabilities_do_not(boxes: Boxes) -> None:
    """With every capability and no filter, /proc and /sys writable: only the profile is left."""
    words = ("mount -t tmpfs x /tmp; echo 1 >/proc/sys/vm/drop_caches; cat /proc/kcore | head -c1; "
             "echo 0 >/proc/sys/kernel/shm_rmid_forced && echo ipc; kill -0 1 && echo kill; cat /proc/self/attr/current")
    answers = {}
    for profile in ("", apparmor.NAME):
        box = boxes("sh", "-c", words, caps=EVERY, **({"apparmorProfile": profile} if profile else {}))
        del box.config["linux"]["seccomp"]
        box.config["linux"]["maskedPaths"] = box.config["linux"]["readonlyPaths"] = []
        _, answers[profile] = await box.run()
    assert answers[""].endswith("ipc\nkill\nunconfined\n"), answers
    assert "denied" not in answers[""]
    ours = answers[apparmor.NAME]
    assert "mounting x on /tmp failed: Permission denied" in ours
    assert "can't create /proc/sys/vm/drop_caches: Permission denied" in ours
    assert "can't open '/proc/kcore': Permission denied" in ours
    assert ours.endswith(f"ipc\nkill\n{ENFORCED}"), ours
