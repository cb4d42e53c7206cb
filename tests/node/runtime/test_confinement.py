"""What a container's process finds itself to be: identity, capabilities, filters, limits, namespaces, file tree."""

import os
import re
import signal
from pathlib import Path

import pytest

from node.containers.monitor import StartFailed
from node.linux import capabilities
from tests.node.runtime.conftest import Box, Boxes

pytestmark = pytest.mark.root


async def run(box: Box) -> str:
    status, output = await box.run()
    assert status.code == 0, output
    return output


def field(status: str, name: str) -> str:
    return re.search(rf"^{name}:\s*(.*)$", status, re.MULTILINE).group(1)  # type: ignore[union-attr]


def mask(names: tuple[str, ...]) -> str:
    return f"{sum(1 << capabilities.ALL.index(name) for name in names):016x}"


async def test_roots_capabilities_are_the_defaults_and_inheritable_is_empty(boxes: Boxes) -> None:
    status = await run(boxes("cat", "/proc/self/status"))
    expected = mask(capabilities.DEFAULT)
    assert [field(status, f"Cap{kind}") for kind in ("Prm", "Eff", "Bnd")] == [expected] * 3
    assert [field(status, f"Cap{kind}") for kind in ("Inh", "Amb")] == ["0" * 16] * 2
    assert (field(status, "NoNewPrivs"), field(status, "Seccomp")) == ("1", "2")


@pytest.mark.parametrize("no_new_privileges", [True, False])
async def test_a_user_has_none_and_keeps_filter_and_bound(boxes: Boxes, no_new_privileges: bool) -> None:
    status = await run(boxes("cat", "/proc/self/status", user={"uid": 1000, "gid": 1000, "additionalGids": [10, 20]},
                             noNewPrivileges=no_new_privileges))
    assert field(status, "Uid").split() == field(status, "Gid").split() == ["1000"] * 4
    assert field(status, "Groups").split() == ["10", "20"]
    assert [field(status, f"Cap{kind}") for kind in ("Inh", "Prm", "Eff", "Amb")] == ["0" * 16] * 4
    assert field(status, "CapBnd") == mask(capabilities.DEFAULT)
    assert (field(status, "NoNewPrivs"), field(status, "Seccomp")) == (str(int(no_new_privileges)), "2")


async def test_ambient_capabilities_reach_a_user(boxes: Boxes) -> None:
    box = boxes("grep", "Cap", "/proc/self/status", user={"uid": 1000, "gid": 1000})
    names = ["CAP_NET_BIND_SERVICE"]
    box.config["process"]["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    status = await run(box)
    assert {field(status, f"Cap{kind}") for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {mask(tuple(names))}


async def test_all_capabilities_are_all_this_host_gives(boxes: Boxes) -> None:
    box = boxes("grep", "CapEff", "/proc/self/status", caps=capabilities.parse(["ALL"]))
    del box.config["linux"]["seccomp"]
    mine = field(Path("/proc/self/status").read_text(), "CapPrm")
    assert int(field(await run(box), "CapEff"), 16) == int(mine, 16)


async def test_without_a_profile_there_is_no_filter(boxes: Boxes) -> None:
    box = boxes("grep", "Seccomp:", "/proc/self/status", noNewPrivileges=False)
    del box.config["linux"]["seccomp"]
    assert field(await run(box), "Seccomp") == "0"


async def test_the_filter_filters(boxes: Boxes) -> None:
    status, output = await boxes("sh", "-c", "mount -t tmpfs x /tmp; mknod /tmp/n b 1 1 && ls /tmp",
                                 caps=capabilities.DOCKER).run()
    assert status.code == 0
    assert "permitted" in output or "denied" in output
    assert output.splitlines()[-1] == "n"


async def test_a_filter_that_lets_nothing_through_ends_it_at_the_command(boxes: Boxes) -> None:
    box = boxes("true", noNewPrivileges=False)
    box.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS"}
    monitor = await box.create()
    await monitor.start()
    assert (await monitor.wait()).code == 128 + signal.SIGSYS


async def test_a_filter_need_not_permit_what_the_runtime_does(boxes: Boxes) -> None:
    """Without no_new_privs too: capset(2) and execve(2) are all that is called under it."""
    box = boxes("grep", "-E", "Seccomp:|CapPrm", "/proc/self/status", noNewPrivileges=False, caps=["CAP_KILL"],
                user={"uid": 1000, "gid": 1000})
    box.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["close_range", "recvfrom", "recvmsg", "sendmsg", "chdir", "setgroups", "setresgid"],
         "action": "SCMP_ACT_KILL_PROCESS"}]}
    output = await run(box)
    assert (field(output, "Seccomp"), int(field(output, "CapPrm"), 16)) == ("2", 0)


async def test_limits_and_what_the_host_does_not_permit(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj",
                rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}], oomScoreAdj=300)
    assert (await run(box)).split() == ["100", "300"]
    box = boxes("true", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}])
    monitor = await box.create()
    assert any("RLIMIT_NOFILE" in warning for warning in monitor.warnings)
    await monitor.start()
    assert (await monitor.wait()).code == 0


async def test_namespaces_are_its_own(boxes: Boxes) -> None:
    output = await run(boxes("sh", "-c", "for n in pid net ipc mnt uts cgroup; do readlink /proc/self/ns/$n; done; "
                                         "hostname; echo $$; ls /proc/sys/net/ipv4/conf; wc -l < /proc/self/cgroup"))
    host = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net", "ipc", "mnt", "uts", "cgroup")}
    lines = output.splitlines()
    assert len(set(lines[:6]) - host) == 6
    assert lines[6:8] == ["box0", "1"]
    assert {"all", "default", "lo"}.issuperset(lines[8:-1])


async def test_the_cgroup_is_the_root_of_its_view_and_read_only(boxes: Boxes) -> None:
    output = await run(boxes("sh", "-c", "cut() { while IFS=: read a b c; do echo $c; done; }; cut < /proc/self/cgroup;"
                                         "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x && echo $d; done 2>&1"
                                         " | grep -vc Read-only; true"))
    *paths, written = output.splitlines()
    assert "/" in set(paths)
    assert not [path for path in paths if "box0" in path]
    assert written == "0"


async def test_joining_namespaces_by_path(boxes: Boxes) -> None:
    first = await boxes("sleep", "100").create()
    await first.start()
    box = boxes("sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ps -o comm")
    box.config["linux"]["namespaces"] = [
        {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": f"/proc/{first.pid}/ns/net"},
        {"type": "pid", "path": f"/proc/{first.pid}/ns/pid"}]
    output = await run(box)
    assert os.readlink(f"/proc/{first.pid}/ns/net") in output
    assert os.readlink(f"/proc/{first.pid}/ns/pid") in output
    assert "sleep" in output


async def test_masked_and_readonly_paths(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "wc -c < /proc/keys; stat -L -c %t:%T /proc/keys; ls /sys/firmware | wc -l; exec 2>&1;"
                            "echo 1 > /proc/sys/kernel/hostname; touch /sys/firmware/x;"
                            "touch /sys/x; echo end")
    lines = (await run(box)).splitlines()
    assert (lines[:3], lines[-1]) == (["0", "1:3", "0"], "end")
    assert [line.rpartition(": ")[2] for line in lines[3:-1]] == ["Read-only file system"] * 3


async def test_a_masked_folder_of_the_image_is_empty(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "ls /secret; cat /secret.txt; echo end")
    (box.root / "secret").mkdir()
    (box.root / "secret/file").write_text("x")
    (box.root / "secret.txt").write_text("x")
    box.config["linux"]["maskedPaths"] = ["/secret", "/secret.txt"]
    assert await run(box) == "end\n"


async def test_a_read_only_root(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "touch /x; touch /dev/shm/y && echo shm; touch /dev/z && echo dev")
    box.config["root"]["readonly"] = True
    output = await run(box)
    assert "Read-only" in output and "shm" in output and "dev" in output


async def test_devices_and_links(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
                            " /dev/extra; for l in fd stdin ptmx core; do readlink /dev/$l; done; df -k /dev/shm | tail -1")
    box.config["linux"]["devices"] = [{"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
                                       "uid": 5, "gid": 6}]
    output = await run(box)
    for name, number in (("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"),
                         ("tty", "5:0")):
        assert f"/dev/{name} character special file {number} 666 0:0" in output
    assert "/dev/extra character special file 1:3 640 5:6" in output
    assert "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n/proc/kcore\n" in output
    assert "65536" in output


async def test_sysctls(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni")
    box.config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "1000"}
    assert (await run(box)).split() == ["80", "1000"]


async def test_a_sysctl_of_the_host_is_refused(boxes: Boxes) -> None:
    box = boxes("true")
    box.config["linux"]["sysctl"] = {"kernel.core_pattern": "|/bin/evil"}
    with pytest.raises(StartFailed, match="would change the host"):
        await box.create()


async def test_the_working_folder_is_made(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "pwd; stat -c %u:%a .", cwd="/srv/deep/er", user={"uid": 1000, "gid": 1000})
    assert (await run(box)).split() == ["/srv/deep/er", "0:755"]


async def test_a_folder_that_is_the_users_alone(boxes: Boxes) -> None:
    box = boxes("pwd", cwd="/root", user={"uid": 1000, "gid": 1000})
    (box.root / "root").chmod(0o700)
    assert await run(box) == "/root\n"


async def test_environment_and_umask(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "echo $NAME; umask; env | wc -l")
    box.config["process"]["env"] += ["NAME=a=b c"]
    box.config["process"]["user"]["umask"] = 0o077
    output = (await run(box)).split("\n")
    assert output[:2] == ["a=b c", "0077"]


async def test_nothing_of_the_host_is_open(boxes: Boxes) -> None:
    reading, writing = os.pipe()
    box = boxes("ls", "-l", "/proc/self/fd")
    box.fds = (reading, writing)
    output = await run(box)
    os.close(reading)
    os.close(writing)
    names = re.findall(r"\d\d:\d\d (\d+)", output)
    assert names == ["0", "1", "2", "3"], "the fourth is ls reading the folder"


async def test_the_session_keyring_is_new(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "grep -c . /proc/keys; true")
    box.config["linux"]["maskedPaths"] = []
    assert (await run(box)).strip().isdigit()


# -- commands that cannot be run


@pytest.mark.parametrize(("command", "kind", "message"), [
    ("foo", "not-found", 'exec: "foo": executable file not found in $PATH'),
    ("/etc", "is-directory", 'exec: "/etc": is a directory'),
    ("/etc/passwd", "permission", 'exec: "/etc/passwd": permission denied'),
    ("/x", "not-found", 'exec: "/x": stat /x: no such file or directory'),
    ("/broken", "permission", "exec /broken: exec format error"),
    ("/script", "not-found", "exec /script: no such file or directory"),
])
async def test_why_a_command_cannot_run(boxes: Boxes, command: str, kind: str, message: str) -> None:
    box = boxes(command)
    (box.root / "broken").write_bytes(b"\x7fELF nonsense")
    (box.root / "script").write_text("#!/no/such/interpreter\n")
    for name in ("broken", "script"):
        (box.root / name).chmod(0o755)
    with pytest.raises(StartFailed) as failed:
        await box.run()
    assert (failed.value.kind, failed.value.message) == (kind, message)
    assert not (box.folder / "exit.json").exists()


async def test_a_command_the_user_may_not_run(boxes: Boxes) -> None:
    box = boxes("/private/tool", user={"uid": 1000, "gid": 1000})
    (box.root / "private").mkdir(mode=0o700)
    (box.root / "private/tool").write_bytes((box.root / "bin/busybox").read_bytes())
    with pytest.raises(StartFailed) as failed:
        await box.run()
    assert (failed.value.kind, failed.value.message) == (
        "permission", 'exec: "/private/tool": stat /private/tool: permission denied')
