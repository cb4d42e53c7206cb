"""The compiled filter against a direct reading of the profile, and against the kernel."""

import errno
import json
import re
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.containers.bundle.dockerseccomp import translate
from node.linux import capabilities, seccomp
from node.linux.syscall_numbers import X32_BIT, numbers
from tests.conftest import Tool

ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ENOSYS = ERRNO | errno.ENOSYS
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ROOT = Path(__file__).resolve().parents[3]


def run(program: bytes, number: int, args: Sequence[int] = (0,) * 6, arch: int = X86_64) -> tuple[int, int]:
    """A classic BPF machine: (the filter's answer, instructions executed)."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *args)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    position, accumulator, steps = 0, 0, 0
    while True:
        operation, yes, no, value = code[position]
        position, steps = position + 1, steps + 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            position += value
        elif operation == 0x06:
            return value, steps
        else:
            taken = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            position += yes if taken else no


COMPARE = {
    "EQ": lambda a, v, _: a == v, "NE": lambda a, v, _: a != v, "LT": lambda a, v, _: a < v,
    "LE": lambda a, v, _: a <= v, "GE": lambda a, v, _: a >= v, "GT": lambda a, v, _: a > v,
    "MASKED_EQ": lambda a, v, two: a & v == two,
}
ACTIONS = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
           "SCMP_ACT_TRAP": 0x30000, "SCMP_ACT_LOG": 0x7FFC0000}


def answer_of(rule: Mapping[str, Any], default: bool = False) -> int:
    action = rule["defaultAction" if default else "action"]
    if action in ACTIONS:
        return ACTIONS[action]
    return ERRNO | rule.get("defaultErrnoRet" if default else "errnoRet", errno.EPERM)


def judge(profile: Mapping[str, Any], name: str, args: Sequence[int]) -> int:
    """What the profile says about a call of that name."""
    default = answer_of(profile, default=True)
    rules = [rule for rule in profile["syscalls"] if name in rule["names"] and answer_of(rule) != default]
    for rule in rules:
        if not rule.get("args"):
            return answer_of(rule)
    for rule in rules:
        if all(COMPARE[arg["op"].removeprefix("SCMP_CMP_")](args[arg["index"]], arg["value"], arg.get("valueTwo", 0))
               for arg in rule["args"]):
            return answer_of(rule)
    return default


# Calls that no other call's door (socketcall, ipc) stands for, low and high numbers, neighbours and lone ones.
NAMES = ("read", "write", "open", "mmap", "clone", "personality", "openat", "clone3", "statx", "mseal", "io_setup")
WORDS = st.one_of(st.integers(0, 3), st.sampled_from([0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]),
                  st.integers(0, (1 << 64) - 1))
ARGUMENT = st.fixed_dictionaries({"index": st.integers(0, 5), "op": st.sampled_from([f"SCMP_CMP_{c}" for c in COMPARE]),
                                  "value": WORDS, "valueTwo": WORDS})
PLAIN = st.sampled_from(list(ACTIONS)).map(lambda action: {"action": action})
FAILING = st.integers(0, 4095).map(lambda number: {"action": "SCMP_ACT_ERRNO", "errnoRet": number})
RULE = st.builds(lambda names, args, action: {"names": names, "args": args, **action},
                 st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
                 st.lists(ARGUMENT, max_size=3), st.one_of(PLAIN, FAILING))
PROFILE = st.builds(lambda rules, action, arches: {"defaultAction": action, "syscalls": rules, "architectures": arches},
                    st.lists(RULE, max_size=8), st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"]),
                    st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), unique=True))


@settings(max_examples=150, deadline=None)
@given(profile=PROFILE, name=st.sampled_from([*NAMES, "close", "getpid", "execve"]), data=st.data())
def test_the_program_does_what_the_profile_says(profile: dict[str, Any], name: str, data: st.DataObject) -> None:
    near = [value for rule in profile["syscalls"] for arg in rule["args"]
            for value in (arg["value"], max(0, arg["value"] - 1), arg["valueTwo"])]
    words = st.one_of(WORDS, st.sampled_from(near)) if near else WORDS
    args = data.draw(st.tuples(*[words] * 6))
    program = seccomp.compile_profile(profile, arch="x86_64")
    arches = profile["architectures"]
    for machine, audit, listed in (("x86_64", X86_64, True), ("i386", I386, "SCMP_ARCH_X86" in arches),
                                   ("x32", X86_64, "SCMP_ARCH_X32" in arches)):
        number = numbers(machine).get(name)
        if number is None:
            continue
        expected = judge(profile, name, args)
        if not listed:
            expected = ENOSYS if machine == "x32" else KILL_PROCESS
        elif number % X32_BIT > 423 and number % X32_BIT < 512:  # may be newer than all that the profile names
            continue
        assert run(program, number, args, audit)[0] == expected, (machine, name)


def test_a_call_newer_than_the_profile_is_unknown_rather_than_forbidden() -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
               "syscalls": [{"names": ["read", "mseal", "of_the_year_2040"], "action": "SCMP_ACT_ALLOW"}]}
    program = seccomp.compile_profile(profile, arch="x86_64")
    for machine, audit in (("x86_64", X86_64), ("i386", I386), ("x32", X86_64)):
        table = numbers(machine)
        assert run(program, table["mseal"], arch=audit)[0] == ALLOW
        assert run(program, table["futex_wait"], arch=audit)[0] == ERRNO | errno.EPERM
        assert run(program, table["mseal"] + 1, arch=audit)[0] == ENOSYS
    assert run(program, numbers("x32")["ioctl"])[0] == ERRNO | errno.EPERM  # x32's own numbers are old, not new
    assert run(program, 0xFFFFFFFF)[0] == ENOSYS
    permissive = profile | {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert run(seccomp.compile_profile(permissive, arch="x86_64"), 9999)[0] == ALLOW


def test_a_denied_socket_cannot_be_had_through_socketcall_on_i386() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket", "semget"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 38}]}]}
    program = seccomp.compile_profile(profile, arch="x86_64")
    socketcall, ipc = numbers("i386")["socketcall"], numbers("i386")["ipc"]
    denied = ERRNO | errno.EPERM
    assert run(program, socketcall, (1, 0, 0, 0, 0, 0), I386)[0] == denied
    assert run(program, socketcall, (2, 0, 0, 0, 0, 0), I386)[0] == ALLOW
    assert run(program, ipc, (0x10002, 0, 0, 0, 0, 0), I386)[0] == denied  # a version in the upper half


def test_an_allowed_socket_with_conditions_does_not_open_socketcall() -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]}]}
    program = seccomp.compile_profile(profile, arch="x86_64")
    assert run(program, numbers("i386")["socketcall"], (1, 0, 0, 0, 0, 0), I386)[0] == ERRNO | errno.EPERM
    assert run(program, numbers("i386")["socket"], (1, 0, 0, 0, 0, 0), I386)[0] == ALLOW


def test_far_jumps() -> None:
    rules = [{"names": [name], "action": "SCMP_ACT_ALLOW",
              "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": value} for value in (number << 33,)]}
             for name in ("read", "openat") for number in range(300)]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    program = seccomp.compile_profile(profile, arch="x86_64")
    for number in (0, 150, 299):
        assert run(program, 0, (0, number << 33, 0, 0, 0, 0))[0] == ALLOW
    assert run(program, 0, (0, 300 << 33, 0, 0, 0, 0))[0] == ERRNO | errno.EPERM
    assert run(program, 1)[0] == ERRNO | errno.EPERM


def test_common_calls_cost_few_instructions() -> None:
    program = seccomp.compile_profile(seccomp.default_profile(capabilities.DEFAULT, arch="x86_64"), arch="x86_64")
    table = numbers("x86_64")
    assert max(run(program, table[name])[1] for name in ("read", "write", "futex", "openat", "epoll_wait")) <= 12
    assert len(program) // 8 < 600


def arg(**changes: object) -> dict[str, object]:
    return {"index": 0, "op": "SCMP_CMP_EQ", "value": 1} | changes


@pytest.mark.parametrize(("profile", "says"), [
    ({}, "unknown seccomp action None"),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be the default action"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": 7}, "listenerPath must be a string"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, "listenerMetadata without a listenerPath"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bind"], "action": "SCMP_ACT_NOTIFY"}]},
     "bind has SCMP_ACT_NOTIFY, but there is no listenerPath"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
      "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}, "write cannot have SCMP_ACT_NOTIFY"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "takes no errnoRet"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "errnoRet"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, "must be a list"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_VAX"]}, "unknown seccomp architecture"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, "no names"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [7], "action": "SCMP_ACT_ALLOW"}]}, "a string"),
    *(({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [bad]}]}, says)
      for bad, says in ((arg(index=6), "argument index"), (arg(value=-1), "value"), (arg(value=1 << 64), "value"),
                        (arg(op="SCMP_CMP_LIKE"), "unknown seccomp comparison"), (arg(value=True), "value"))),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(value=number)]} for number in range(2000)]},
     "too large"),
])
def test_impossible_profiles_are_named(profile: dict[str, Any], says: str) -> None:
    with pytest.raises(seccomp.InvalidProfile, match=says):
        seccomp.compile_profile(profile, arch="x86_64")


def test_flags() -> None:
    assert seccomp.filter_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}) == 6
    with pytest.raises(seccomp.InvalidProfile, match="WAIT_KILLABLE"):
        seccomp.filter_flags({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]})


@pytest.mark.parametrize(("machine", "header"), [
    ("x86_64", "unistd_64.h"), ("i386", "unistd_32.h"), ("x32", "unistd_x32.h")])
def test_numbers_are_the_kernels(machine: str, header: str) -> None:
    path = Path("/usr/include/x86_64-linux-gnu/asm") / header
    if not path.exists():
        pytest.skip(f"no kernel headers ({path})")
    theirs = {}
    for line in path.read_text().splitlines():
        words = line.replace("(__X32_SYSCALL_BIT + ", "").replace(")", "").split()
        if len(words) == 3 and words[1].startswith("__NR_") and words[2].isdecimal():
            theirs[words[1].removeprefix("__NR_")] = int(words[2]) | (X32_BIT if machine == "x32" else 0)
    ours = numbers(machine)
    assert {name: ours.get(name) for name in theirs} == theirs


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("i386", "386"), ("aarch64", "arm64"),
                                               ("arm", "arm")])  # fmt: skip
def test_numbers_are_those_of_gos_tables(machine: str, name: str) -> None:
    """golang.org/x/sys, made from the headers of a newer kernel than this machine's, where some module brought it."""
    module = Path.home() / "go/pkg/mod/golang.org/x"
    tables = sorted(module.glob(f"sys@v*/unix/zsysnum_linux_{name}.go"), key=lambda path: len(path.read_text()))
    if not tables:
        pytest.skip("no golang.org/x/sys here")
    found = re.findall(r"^\tSYS_(\w+) += (\d+)", tables[-1].read_text(), re.MULTILINE)
    no_calls = ("SYSCALL_MASK", "ARCH_SPECIFIC_SYSCALL")
    theirs = {written.lower(): int(number) for written, number in found if written not in no_calls}
    ours = numbers(machine)
    assert {written: ours.get(written) for written in theirs} == theirs


@pytest.mark.parametrize("caps", [[], capabilities.DEFAULT, capabilities.DOCKER, capabilities.ALL, ["CAP_SYS_PTRACE"],
                                  ["CAP_SYS_ADMIN", "CAP_BPF"]])  # fmt: skip
def test_the_default_profile_is_dockers_to_the_byte(caps: Sequence[str], tool: Tool) -> None:
    theirs = translate(json.loads(tool("moby-seccomp.json").read_text()), caps)
    assert seccomp.compile_profile(seccomp.default_profile(caps)) == seccomp.compile_profile(theirs)


def test_no_32_bit_door_by_default() -> None:
    for arch, native, older, door in (("x86_64", X86_64, I386, "i386"), ("aarch64", AARCH64, ARM, "arm")):
        narrow = seccomp.compile_profile(seccomp.default_profile(capabilities.DEFAULT, arch=arch, older=False), arch=arch)
        wide = seccomp.compile_profile(seccomp.default_profile(capabilities.DEFAULT, arch=arch), arch=arch)
        write = numbers(door)["write"]
        assert run(narrow, numbers(arch)["write"], arch=native)[0] == ALLOW
        assert run(narrow, write, arch=older)[0] == KILL_PROCESS
        assert run(wide, write, arch=older)[0] == ALLOW
        assert len(narrow) < len(wide)
    assert run(seccomp.compile_profile(seccomp.default_profile([], arch="x86_64", older=False), arch="x86_64"),
               numbers("x32")["write"])[0] == ENOSYS  # fmt: skip


def test_arm_has_calls_of_its_own() -> None:
    program = seccomp.compile_profile(seccomp.default_profile([], arch="aarch64"), arch="aarch64")
    table = numbers("arm")
    assert {name: table[name] for name in ("cacheflush", "set_tls", "sync_file_range2", "mmap2")} == {
        "cacheflush": 0xF0002, "set_tls": 0xF0005, "sync_file_range2": 341, "mmap2": 192}  # fmt: skip
    for name in ("cacheflush", "set_tls", "sync_file_range2", "mmap2", "openat2"):
        assert run(program, table[name], arch=ARM)[0] == ALLOW
    assert run(program, table["usr26"], arch=ARM)[0] == ENOSYS
    assert run(program, table["keyctl"], arch=ARM)[0] == ERRNO | errno.EPERM


# --- the kernel's own opinion ----------------------------------------------------------------------------------------

CHILD = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from node.linux import seccomp
calls = json.loads(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3) == 0
seccomp.load(sys.stdin.buffer.read())
answers = []
for number, *args in calls:
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg) for arg in args])
    answers.append(ctypes.get_errno() if result < 0 else 0)
print(json.dumps(answers))
"""


def under_filter(profile: Mapping[str, Any], calls: list[list[int]]) -> list[int]:
    """The errno of each call in a process under the profile."""
    done = subprocess.run([sys.executable, "-I", "-c", CHILD, str(ROOT), json.dumps(calls)], capture_output=True,
                          input=seccomp.compile_profile(profile), check=False)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_the_default_profile_in_the_kernel() -> None:
    table = numbers("x86_64")
    families = [[table["socket"], family, 2, 0] for family in (1, 38, 40, (1 << 32) + 38)]
    new_user = 0x10000000
    forbidden = [[table["unshare"], new_user], [table["clone"], new_user, 0, 0, 0, 0], [table["mount"], 0, 0, 0, 0, 0],
                 [table["keyctl"], 0, 0, 0, 0, 0], [table["io_uring_setup"], 1, 0], [table["userfaultfd"], 0],
                 [table["personality"], 0x0040000], [table["bpf"], 0, 0, 0]]
    unknown = [[table["clone3"], 0, 0], [9999], [table["getpid"] | X32_BIT]]
    fine = [[table["getpid"]], [table["personality"], 0xFFFFFFFF]]
    answers = under_filter(seccomp.default_profile(capabilities.DEFAULT), [*families, *forbidden, *unknown, *fine])
    assert answers == [0, 1, 1, 1, *[errno.EPERM] * len(forbidden), *[errno.ENOSYS] * 3, 0, 0]


def test_a_killing_rule_kills() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW",
               "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"}]}
    done = subprocess.run([sys.executable, "-I", "-c", CHILD, str(ROOT), json.dumps([[numbers("x86_64")["getppid"]]])],
                          capture_output=True, input=seccomp.compile_profile(profile), check=False)
    assert done.returncode == -31  # SIGSYS


def test_what_is_no_program_is_refused() -> None:
    for program in (b"", b"1234567", b"\0" * 8 * 4097):
        with pytest.raises(OSError, match="not a filter program"):
            seccomp.load(program)


NOTIFIED = """
import ctypes, os, struct, sys, threading
sys.path.insert(0, sys.argv[1])
from node.linux import seccomp
from node.linux.syscall_numbers import numbers
import fcntl
profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
           "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]}
flags = seccomp.filter_flags(profile)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, *[ctypes.c_ulong(value) for value in (1, 0, 0, 0)])
listener = seccomp.load(seccomp.compile_profile(profile), flags)
assert not os.get_inheritable(listener)
def agent():
    asked = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, asked)  # SECCOMP_IOCTL_NOTIF_RECV
    number, = struct.unpack_from("=Q", asked)
    fcntl.ioctl(listener, 0xC0182101, struct.pack("=QqiI", number, 4711, 0, 0))  # SECCOMP_IOCTL_NOTIF_SEND
threading.Thread(target=agent).start()
print(flags, libc.getppid())  # by ctypes, which lets go of the interpreter meanwhile
"""


def test_an_agent_answers_in_the_kernels_place() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", NOTIFIED, str(ROOT)], capture_output=True, text=True, check=False,
                          timeout=20)  # fmt: skip
    assert done.stdout == "25 4711\n", done.stderr
