"""Containers among themselves: keys, processes and files of one are nothing to the other."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WaitFor
from tests.escapes.conftest import Node, Prober, borrowed

pytestmark = pytest.mark.root

KEY = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
print(libc.syscall(int(sys.argv[1]), b"user", b"seawall-neighbour", b"secret", ctypes.c_size_t(6), ctypes.c_int(-4)),
      flush=True)
time.sleep(60)
"""


def keeper_of_a_key(node: Node, probe: Prober, wait_for: WaitFor, host: dict[str, Any]) -> str:
    python = str(Path(sys.executable).resolve())
    made = node.begin("prober", python, "-I", "-S", "-c", KEY, str(probe.asked["calls"]["add_key"]),
                      host={**host, "Binds": borrowed()})
    wait_for(lambda: node.logs(made))
    assert int(node.logs(made)) > 0
    return made


def finds_it(probe: Prober, host: dict[str, Any]) -> str:
    asked, probe.asked = probe.asked, {**probe.asked, "key": "seawall-neighbour"}
    try:
        return probe(host, "keys_of_the_host")["keys_of_the_host"][0]
    finally:
        probe.asked = asked


def test_keys(node: Node, probe: Prober, wait_for: WaitFor) -> None:
    """All that are root share one keyring of that user; it is the filter that keeps them from it (and, where each has a
    user namespace of its own, the kernel)."""
    unfiltered = {"UsernsMode": "host", "SecurityOpt": ["seccomp=unconfined"]}
    made = keeper_of_a_key(node, probe, wait_for, unfiltered)
    assert finds_it(probe, unfiltered) == "open", "the key is not where it was looked for"
    assert finds_it(probe, {"UsernsMode": "host"}) == "closed"
    assert finds_it(probe, {}) == "closed"
    node.remove(made)


def test_processes(node: Node, probe: Prober) -> None:
    made = node.begin("prober", "sleep", "60")
    pid = node.inspect(made)["State"]["Pid"]
    names = ("signal_the_host", "trace_the_host", "read_the_hosts_memory", "root_of_the_host")
    asked, probe.asked = probe.asked, {**probe.asked, "victim": pid}
    try:
        found = probe({"CapAdd": ["SYS_PTRACE", "KILL", "DAC_READ_SEARCH"]}, *names)
        assert {verdict for verdict, _ in found.values()} == {"closed"}
        joined = probe({"UsernsMode": "host", "PidMode": "host", "CapAdd": ["SYS_PTRACE"]}, *names)
        assert {verdict for verdict, _ in joined.values()} == {"open"}
    finally:
        probe.asked = asked
        node.remove(made)


@pytest.mark.parametrize("users", ["host", ""])
def test_of_a_shared_pid_namespace_only_what_is_alike(node: Node, users: str) -> None:
    """Who joins another's processes sees them and nobody else's, and reaches no more than its own rights are."""
    look = "echo /proc/[0-9]*; cat /proc/1/cmdline; ls /proc/1/root"
    made = node.begin("prober", "sleep", "60", host={"UsernsMode": users, "CapAdd": ["NET_ADMIN"]})
    joins = {"PidMode": f"container:{made}", "UsernsMode": users}
    code, said = node.run("prober", "sh", "-c", look, host=joins)
    _, equal = node.run("prober", "sh", "-c", look, host={**joins, "CapAdd": ["NET_ADMIN"]})
    node.remove(made)
    assert "sleep\x0060" in said and len(said.splitlines()[0].split()) <= 4, said
    assert code != 0 and "ermission denied" in said
    assert "etc\n" in equal, "nobody is let in: the test shows nothing"
