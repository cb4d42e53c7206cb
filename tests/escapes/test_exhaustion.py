"""One container that takes all it can get: the others and the host go on. And its signals end nobody else's processes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.escapes.conftest import Node, borrowed

pytestmark = pytest.mark.root

FORKS = """
import os, json, sys
made = []
for _ in range(int(sys.argv[1])):
    try:
        child = os.fork()
    except OSError as error:
        print(json.dumps({"made": len(made), "error": error.errno}))
        break
    if child == 0:
        import signal; signal.pause()
    made.append(child)
else:
    print(json.dumps({"made": len(made), "error": 0}))
for child in made: os.kill(child, 9)
"""
INODES = """
import os
for number in range(2_000_000):
    os.close(os.open(f"/dev/shm/{number}", os.O_CREAT | os.O_WRONLY))
print("no end")
"""


def python(node: Node, program: str, *words: str, **host: Any) -> tuple[int, str]:
    return node.run("prober", str(Path(sys.executable).resolve()), "-I", "-S", "-c", program, *words,
                    host={"Binds": borrowed(), **host})


def test_a_fork_bomb_meets_its_limit(node: Node) -> None:
    bounded = json.loads(python(node, FORKS, "200", PidsLimit=40)[1])
    assert bounded["error"] == 11 and 30 < bounded["made"] < 40
    assert json.loads(python(node, FORKS, "200")[1]) == {"made": 200, "error": 0}


def test_there_is_a_limit_of_processes_without_asking(node: Node) -> None:
    made = node.begin("prober", "sleep", "60")
    pid = node.inspect(made)["State"]["Pid"]
    node_limit = [int(text) for text in limits(pid)]
    node.remove(made)
    assert node_limit == [4096]


def limits(pid: int) -> list[str]:
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for place in (f"/sys/fs/cgroup/{controllers}{path}", f"/sys/fs/cgroup/unified{path}", f"/sys/fs/cgroup{path}"):
            file = Path(place, "pids.max")
            if file.exists() and file.read_text().strip() not in found:
                found.append(file.read_text().strip())
    return [text for text in found if text != "max"]


@pytest.mark.parametrize("program", ["bytearray(1 << 30)", INODES])
def test_memory_ends_with_its_limit(node: Node, program: str) -> None:
    """Files that hold nothing fill memory as well."""
    made = node.begin("prober", str(Path(sys.executable).resolve()), "-I", "-S", "-c", program,
                      host={"Binds": borrowed(), "Memory": 24 << 20, "MemorySwap": 24 << 20})
    code = node.client.json("POST", f"/containers/{made}/wait")["StatusCode"]
    state, said = node.inspect(made)["State"], node.logs(made)
    node.remove(made)
    assert "no end" not in said
    assert (code, state["OOMKilled"]) == (137, True) or "MemoryError" in said or "No space left" in said


def test_a_tmpfs_has_a_size(node: Node) -> None:
    _, said = node.run("prober", "sh", "-c", "for d in /dev /dev/shm; do dd if=/dev/zero of=$d/big bs=1M count=100; "
                                                "rm $d/big; done")
    assert said.count("No space left on device") == 2 or "Permission denied" in said


def test_signals_end_at_the_container(node: Node, victim: int) -> None:
    """SIGKILL to everybody; the test's own victim, the node and another container live on."""
    other = node.begin("prober", "sleep", "60")
    node.run("prober", "sh", "-c", "kill -9 -1; for p in $(seq 2 3000); do kill -9 $p; done 2> /dev/null")
    node.run("prober", "sh", "-c", f"kill -9 {victim} {node.inspect(other)['State']['Pid']} 1")
    assert Path(f"/proc/{victim}/cmdline").read_bytes().startswith(b"sleep")
    assert node.inspect(other)["State"]["Running"]
    node.remove(other)
