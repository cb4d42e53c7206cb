"""seawall-runtime's filters that ask an agent, and execs where the mount namespace is not the container's."""

import platform
from pathlib import Path
from typing import Any

import pytest

from tests.node.runtime.oci.conftest import Runtime
from tests.node.runtime.test_asking import Agent, agent, profile

__all__ = ("agent",)
pytestmark = [pytest.mark.root, pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")]


def test_start_and_run_hand_the_listener_over(runtime: Runtime, agent: Agent) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = profile(agent.path)

    bundle = runtime.bundle("sh", "-c", "echo $PPID", change=change)
    assert runtime("run", "--bundle", str(bundle), "asks1").stdout == "4711\n"
    bundle = runtime.bundle("sh", "-c", "[ $PPID = 4711 ] && touch /tmp/yes", change=change)
    runtime("create", "--bundle", str(bundle), "asks2")
    runtime("start", "asks2")
    assert [(told["state"]["id"], told["state"]["status"]) for told in agent.told] == [
        ("asks1", "created"), ("asks2", "created")]


def test_without_an_agent_it_does_not_start(runtime: Runtime, tmp_path: Path) -> None:
    bundle = runtime.bundle("true", change=lambda config: config["linux"].update(seccomp=profile(tmp_path / "nobody")))
    runtime("create", "--bundle", str(bundle), "alone")
    failed = runtime("start", "alone", check=False)
    assert failed.returncode == 1 and "seccomp agent" in failed.stderr


def test_an_exec_is_in_the_root_of_a_container_without_a_mount_namespace(runtime: Runtime) -> None:
    def change(config: dict[str, Any]) -> None:
        linux = config["linux"]
        linux["namespaces"] = [item for item in linux["namespaces"] if item["type"] not in ("mount", "user")]

    bundle = runtime.running("rooted", "sleep", "100", change=change)
    (bundle / "rootfs/mark").write_text("here")
    assert runtime("exec", "rooted", "cat", "/mark").stdout == "here"
