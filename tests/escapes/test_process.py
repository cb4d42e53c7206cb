"""What a process in a container tries. Each attempt fails by default, fails with a host's user namespace and Docker's
capabilities too, and works where the defence is taken away: a probe that cannot succeed proves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.escapes import probe as attempts
from tests.escapes.conftest import PROBE, Answer, Node, Prober, own_abstract_sockets

pytestmark = pytest.mark.root

DOCKERS: dict[str, Any] = {"UsernsMode": "host", "CapAdd": ["MKNOD", "NET_RAW", "AUDIT_WRITE"]}
WEAK: dict[str, Any] = {
    "Privileged": True, "PidMode": "host", "NetworkMode": "host", "UTSMode": "host", "CgroupnsMode": "host",
    "UsernsMode": "host", "SecurityOpt": ["seccomp=unconfined", "systempaths=unconfined", "no-new-privileges=false"],
}  # fmt: skip
ADMIN: dict[str, Any] = {"UsernsMode": "host", "CapAdd": ["SYS_ADMIN"]}

UNMASKING = {"masks_taken_away", "remount_proc_sys", "core_pattern_made_writable"}
"""Where nothing is masked there is nothing to take away: these work for CAP_SYS_ADMIN."""

ELSEWHERE = {"leaked_descriptors", "out_of_a_chroot"}
"""No flag takes their defence away; a test of their own shows that they can work."""

WITH_DOCKERS = {"socket AF_PACKET", "socket raw IP"}
"""CAP_NET_RAW is just this."""

HOST_PIDS = {"trace_the_host", "read_the_hosts_memory", "take_the_hosts_descriptors", "root_of_the_host",
             "environment_of_the_host", "namespaces_of_the_host", "host_by_anyones_root",
             "writable_program_of_the_runtime", "leaked_descriptors"}  # fmt: skip


ROOT_INSIDE: dict[str, Any] = {"CapAdd": ["SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "DAC_READ_SEARCH", "NET_ADMIN"]}
OVER_ITSELF = {
    "call bpf", "call clone3", "call fanotify_init", "call fsopen", "call mount", "call open_tree", "call perf_event_open",
    "call pivot_root", "call quotactl", "call sethostname", "call umount2", "call unshare", "enter_a_namespace",
    "file_by_handle", "masks_taken_away", "new_user_namespace", "release_agent_of_a_user_namespace", "remount_proc_sys",
}  # fmt: skip
"""What root of a user namespace may with these capabilities: over its own mounts and namespaces. (Handles of files are
decoded below what it may see anyway; a mount of cgroups shows its own; what is no longer masked is read by the host's
root alone.)"""


@pytest.fixture(scope="module")
def default(probe: Prober) -> Answer:
    return probe({})


@pytest.fixture(scope="module")
def like_docker(probe: Prober) -> Answer:
    return probe(DOCKERS)


@pytest.fixture(scope="module")
def weak(probe: Prober) -> Answer:
    return probe(WEAK) | probe(ADMIN, *UNMASKING)


@pytest.mark.parametrize("name", sorted(attempts.ATTEMPTS))
def test_attempt(name: str, default: Answer, like_docker: Answer, weak: Answer) -> None:
    assert default[name][0] != "open", default[name][1]
    if name not in WITH_DOCKERS:
        assert like_docker[name][0] != "open", like_docker[name][1]
    verdict, detail = weak[name]
    # What this kernel does not have nobody reaches; what it has the weak container must.
    here = verdict != "absent" and detail not in ("ENOSYS", "it is empty")
    assert verdict == "open" or name in ELSEWHERE or not here, f"the attempt never works: {detail}"


def test_most_attempts_work_on_the_weak_container(weak: Answer) -> None:
    """Or the table would prove nothing."""
    assert sum(verdict == "open" for verdict, _ in weak.values()) >= len(attempts.ATTEMPTS) // 2


def test_root_is_nobody_on_the_host(node: Node, probe: Prober) -> None:
    """Whoever gets out, by whatever way, owns nothing there; and what root inside is given ends at its namespaces."""
    for users, expected in (("", False), ("host", True)):
        made = node.begin("prober", "sleep", "60", host={"UsernsMode": users, **ROOT_INSIDE})
        status = Path(f"/proc/{node.inspect(made)['State']['Pid']}/status").read_text()
        node.remove(made)
        assert ("\nUid:\t0\t0\t0\t0\n" in status) == expected
    found = probe(ROOT_INSIDE)
    opened = {name: detail for name, (verdict, detail) in found.items() if verdict == "open" and name not in OVER_ITSELF}
    assert opened == {}


def test_a_descriptor_that_leaks_is_found() -> None:
    folder = os.open("/", os.O_RDONLY)
    said = subprocess.run([sys.executable, "-I", "-S", PROBE, json.dumps({"only": ["leaked_descriptors"], "apart": False})],
                          pass_fds=(folder,), capture_output=True, check=True).stdout
    os.close(folder)
    verdict, detail = json.loads(said)["leaked_descriptors"]
    assert (verdict, detail) == ("open", f"/proc/self/fd/{folder} is /")


def test_a_root_that_is_only_changed_is_left(tmp_path: Path) -> None:
    """What chroot(2) alone is worth: the same attempt, in a root that was made with it."""
    (tmp_path / "tmp").mkdir()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.chroot(tmp_path)
            os.chdir("/")
            os.write(writing, attempts.out_of_a_chroot().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.read().startswith("another root: ")
    os.waitpid(child, 0)


def test_among_the_hosts_processes_none_is_taken_over(probe: Prober, victim: int) -> None:
    """--pid host shows them. To open one takes rights that no container has by default."""
    pids = [victim, *probe.node.family()]
    for host in ({}, DOCKERS):
        found = probe({"PidMode": "host", **host}, *HOST_PIDS, pids=pids)
        assert {name: detail for name, (verdict, detail) in found.items() if verdict == "open"} == {}


def test_we_have_no_abstract_socket(probe: Prober) -> None:
    """A container in the host's network reaches every one (CVE-2020-15257): none of our processes listens on any."""
    assert probe({"NetworkMode": "host"}, "abstract_socket_of_the_host")["abstract_socket_of_the_host"][0] == "open"
    assert own_abstract_sockets({os.getpid()}) == [f"@{probe.asked['abstract']}"]
    assert own_abstract_sockets(probe.node.family()) == []
