"""What a container finds itself allowed, with the docker command: by default, and what each flag changes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from node.linux import capabilities, cgroups
from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.root]

ASK = ("grep", "-E", "^(CapEff|CapAmb|CapInh|CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status")


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def status(docker: Docker, *flags: str) -> dict[str, str]:
    shown = docker.ok("run", "--rm", *flags, docker.platform.image(), *ASK)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in shown.splitlines())}


def mask(*names: str) -> str:
    return f"{sum(1 << capabilities.ALL.index(name) for name in names):016x}"


def pids_limit(group: str) -> set[str]:
    """Of the container's cgroup; walk, not rglob, which fails when another's group goes meanwhile."""
    return {Path(where, "pids.max").read_text().strip() for where, _, files in os.walk("/sys/fs/cgroup")
            if where.endswith(f"/{group}") and "pids.max" in files}  # fmt: skip


NONE = mask()


def test_what_a_container_holds_by_default(newest: Docker) -> None:
    held = status(newest)
    assert held == {"CapInh": NONE, "CapEff": mask(*capabilities.DEFAULT), "CapBnd": mask(*capabilities.DEFAULT),
                    "CapAmb": NONE, "NoNewPrivs": "1", "Seccomp": "2"}
    dockers = status(newest, "--isolation", "docker")
    assert (dockers["CapEff"], dockers["NoNewPrivs"]) == (mask(*capabilities.DOCKER), "0")
    image = newest.platform.image()
    ids = newest.ok("run", "--rm", "--isolation", "docker", image, "cat", "/proc/self/uid_map").split()
    assert ids == Path("/proc/self/uid_map").read_text().split()
    assert newest.ok("run", "--rm", image, "cat", "/proc/self/uid_map").split() != ids


def test_a_user_holds_what_is_added_by_name(newest: Docker) -> None:
    time = mask("CAP_NET_BIND_SERVICE", "CAP_CHOWN")
    held = status(newest, "-u", "1000", "--cap-add", "net_bind_service", "--cap-add", "CHOWN")
    assert (held["CapEff"], held["CapAmb"], held["CapInh"]) == (time, time, time)
    assert held["CapBnd"] == mask(*capabilities.DEFAULT)
    assert status(newest, "-u", "1000")["CapEff"] == NONE
    assert status(newest, "-u", "1000", "--cap-add", "CHOWN", "--isolation", "docker")["CapEff"] == NONE
    image = newest.platform.image()
    made = newest.ok("create", "-u", "1000", "--cap-add", "CHOWN", image).strip()
    assert newest.inspect(made, "{{json .HostConfig.CapAdd}}") in ('["CHOWN"]', '["CAP_CHOWN"]')
    shown = newest.platform.client.json("GET", f"/containers/{made}/json")
    assert (shown["EffectiveCaps"], set(shown["BoundingCaps"])) == (["CAP_CHOWN"], set(capabilities.DEFAULT))
    newest.ok("run", "-d", "--name", "kept", "--cap-drop", "ALL", "--cap-add", "CHOWN", image, "sleep", "60")
    # Changing an owner is what the capability is for: a user of an exec has it, too.
    assert newest.ok("exec", "-u", "1000", "kept", "sh", "-c", "chown 7 /etc/group; stat -c %u /etc/group") == "7\n"


def test_ping_needs_no_capability(newest: Docker) -> None:
    """Alpine's takes the socket that every user may have (ping_group_range); plain busybox's wants a raw one."""
    newest.platform.pull("alpine:3.10")
    ping = ("ping", "-c1", "-W2", "127.0.0.1")
    alpine, busybox = newest.platform.image("alpine:3.10"), newest.platform.image()
    assert " 0% packet loss" in newest.ok("run", "--rm", alpine, *ping)
    assert " 0% packet loss" in newest.ok("run", "--rm", "-u", "1000", alpine, *ping)
    assert "permission denied" in newest("run", "--rm", busybox, *ping).stderr
    assert " 0% packet loss" in newest.ok("run", "--rm", "--cap-add", "NET_RAW", busybox, *ping)


def test_a_fork_bomb_ends_in_its_container(newest: Docker) -> None:
    image = newest.platform.image()
    newest.ok("run", "-d", "--name", "many", image, "sleep", "60")
    assert newest.inspect("many", "{{.HostConfig.PidsLimit}}") == "4096"
    group = newest.inspect("many", "{{.Id}}")
    assert pids_limit(group) == {"4096"}
    newest.ok("update", "--pids-limit", "-1", "many")
    assert pids_limit(group) == {"max"}
    assert newest.inspect("many", "{{.HostConfig.PidsLimit}}") == "-1"
    for flags, limit in ((("--pids-limit", "-1"), "-1"), (("--isolation", "docker"), "<nil>"),
                         (("--privileged",), "<nil>"), (("--pids-limit", "7"), "7")):  # fmt: skip
        made = newest.ok("create", *flags, image).strip()
        assert newest.inspect(made, "{{.HostConfig.PidsLimit}}") == limit


def test_every_security_option(newest: Docker) -> None:
    image = newest.platform.image()

    def ran(option: str, *words: str) -> str:
        return newest.ok("run", "--rm", "--security-opt", option, image, *words)

    assert "hidepid=invisible" in ran("proc-opts=hidepid=2", "grep", " /proc proc", "/proc/mounts")
    assert ran("mask=/proc/uptime", "cat", "/proc/uptime") == ""
    # Readable for the host's root alone: that nothing lies over it any more is seen.
    assert ran("unmask=/proc/timer_list", "sh", "-c", "grep -c timer_list /proc/mounts; true") == "0\n"
    look = ("grep", "-m1", " /sys/fs/cgroup[ /]", "/proc/mounts")
    shared = newest.ok("run", "--rm", "--userns", "host", "--security-opt", "writable-cgroups=true", image, *look)
    assert " rw" in shared
    if cgroups.detect().version == 1:
        # Of its own user namespace's root they are safe on version 2 alone (tests/vm/inside/test_owned_groups.py).
        refused = newest("run", "--rm", "--security-opt", "writable-cgroups=true", image, *look)
        assert "gets writable groups of cgroup version 2 alone" in refused.stderr
    assert ran("systempaths=unconfined", "sh", "-c", "grep -c ' /proc/' /proc/mounts; true") == "0\n"
    for option, says in (("label=type:x", "runs without SELinux"), ("apparmor=mine", "runs without AppArmor"),
                         ("nonsense=1", 'invalid --security-opt: "nonsense=1"'), ("mask=proc", "no clean absolute"),
                         ("no-new-privileges=perhaps", "neither true nor false")):  # fmt: skip
        refused = newest("run", "--rm", "--security-opt", option, image, "true")
        assert refused.returncode != 0
        assert says in refused.stderr
    assert newest.ok("run", "--rm", "--security-opt", "label=disable", "--security-opt", "apparmor=unconfined", image,
                     "echo", "on") == "on\n"  # fmt: skip


def test_32_bit_images(newest: Docker, shared: Path) -> None:
    platform = newest.platform
    image = platform.image("busybox:old")
    archive = shared / "images" / "busybox-1.38.0-musl-multiarch.oci.tar"
    subprocess.run(["skopeo", "copy", "-q", "--override-arch=386", "--dest-tls-verify=false", f"oci-archive:{archive}",
                    f"docker://{image}"], check=True, capture_output=True, timeout=60)
    opened = newest("run", "--rm", "--platform", "linux/386", image, "uname", "-m", timeout=60)
    assert opened.stdout == "x86_64\n", opened.stderr
    # Whoever runs it without saying so has not asked for a 32-bit one.
    closed = newest("run", "--rm", image, "true")
    assert closed.returncode == 159
    assert "system calls of 32-bit programs are closed" in closed.stderr
    assert newest("run", "--rm", "--isolation", "docker", image, "true").returncode == 0


def test_what_the_daemon_says_of_itself(newest: Docker) -> None:
    shown = json.loads(newest.ok("info", "-f", "{{json .SecurityOptions}}"))
    assert {"name=seccomp,profile=builtin", "name=cgroupns", "name=no-new-privileges"} <= set(shown)
    refused = newest("create", "--isolation", "hyperv", newest.platform.image())
    assert 'invalid isolation: "hyperv": it is one of seawall, docker or default' in refused.stderr
