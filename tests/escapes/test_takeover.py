"""A container that may trace, and in whose pid namespace others are born: it gets no process before that has become
powerless. (With user namespaces the kernel sees to it; here is what holds without.)"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from node.linux import capabilities
from tests.conftest import WaitFor
from tests.escapes.conftest import Node, borrowed

pytestmark = pytest.mark.root

TRACER: dict[str, Any] = {"UsernsMode": "host", "CapAdd": ["SYS_PTRACE"], "Binds": borrowed()}
TRIES = 8


def said(node: Node, container: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.logs(container).splitlines()]


def power(names: tuple[str, ...]) -> int:
    return sum(1 << capabilities.ALL.index(name) for name in names)


@pytest.mark.parametrize("victim", ["the tracer's own execs", "a container that joins", "its execs"])
def test_no_birth_is_taken_over(node: Node, wait_for: WaitFor, victim: str) -> None:
    python = str(Path(sys.executable).resolve())
    tracer = node.begin("prober", python, "-I", "-S", "/tracer.py", host=TRACER, OpenStdin=True)
    wait_for(lambda: said(node, tracer))
    joins = {"UsernsMode": "host", "PidMode": f"container:{tracer}"}
    other = node.begin("prober", "sleep", "60", host=joins) if victim == "its execs" else tracer
    for _ in range(TRIES):
        if victim == "a container that joins":
            assert node.run("prober", "sleep", "0.02", host=joins)[0] == 0
        else:
            code, text = node.execute(other, "sleep", "0.02")
            assert code == 0, text + node.logs(tracer)
    wait_for(lambda: len(said(node, tracer)) > TRIES // 2, what="the tracer sees who is born")
    begin, *found = said(node, tracer)
    for container in {tracer, other}:
        node.remove(container)
    taken = [one for one in found if one["taken"]]
    assert taken, "the tracer never took anybody: the test shows nothing"
    allowed = power((*capabilities.DEFAULT, "CAP_SYS_PTRACE"))
    assert [one for one in taken if int(one["can"], 16) & ~allowed] == [], "taken while it still had our capabilities"
    assert begin["ready"]
