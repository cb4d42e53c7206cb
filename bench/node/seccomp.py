"""The default seccomp filter: ours against libseccomp's, which runc and crun compile theirs with.

    .venv/bin/python bench/node/seccomp.py [--rounds 20]

One profile (Docker's, with the 32-bit calls that Docker lets in), compiled by both, loaded and measured in turn in
fresh processes: what compiling costs, what finding it again costs, what loading costs, how long the program is, and
what a system call costs under it. The kernel remembers calls that a filter lets through whatever their arguments
(Linux 5.11), so those cost the same; the others run the program each time: allowed by argument (personality) or denied.
Medians of processor time; of system calls the least of many, for other work on the machine only ever adds.
"""

import argparse
import ctypes
import ctypes.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.linux import capabilities, seccomp
from node.linux.seccomp_cache import Programs
from node.linux.syscall_numbers import numbers

ROOT = Path(__file__).resolve().parents[2]
CALLS = {"getppid (let through)": ("getppid", 0), "personality (by argument)": ("personality", 0xFFFFFFFF),
         "socket (AF_ALG, denied)": ("socket", 38), "keyctl (denied)": ("keyctl", 0)}
COMPARISONS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
ARCHES = {"SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X32": 0x4000003E}
LOAD = """
import ctypes, json, sys, time
sys.path.insert(0, sys.argv[1])
from node.linux import seccomp_load
program, calls, count = sys.stdin.buffer.read(), json.loads(sys.argv[2]), 1000
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
began = time.perf_counter()
if program:
    seccomp_load.load(program)
loading = time.perf_counter() - began
call, found = libc.syscall, []
for number, argument in calls:
    number, argument = ctypes.c_long(number), ctypes.c_ulong(argument)
    batches = []
    for _ in range(300):
        began = time.perf_counter()
        for _ in range(count):
            call(number, argument)
        batches.append((time.perf_counter() - began) / count)
    found.append(min(batches))
print(json.dumps([loading, found]))
"""


class Argument(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Peer:
    """libseccomp, as runc drives it."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("seccomp")
        if name is None:
            sys.exit("this machine has no libseccomp to compare with")
        self._library = ctypes.CDLL(name)
        self._library.seccomp_init.restype = ctypes.c_void_p

    def compile(self, profile: dict[str, Any]) -> bytes:
        library = self._library
        context = ctypes.c_void_p(library.seccomp_init(_action(profile["defaultAction"], profile["defaultErrnoRet"])))
        for name in profile["architectures"]:
            if name in ARCHES:
                library.seccomp_arch_add(context, ctypes.c_uint32(ARCHES[name]))
        for rule in profile["syscalls"]:
            args = [Argument(arg["index"], COMPARISONS[arg["op"].removeprefix("SCMP_CMP_")], arg["value"],
                             arg.get("valueTwo", 0)) for arg in rule.get("args", ())]  # fmt: skip
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number != -1:
                    library.seccomp_rule_add_array(context, ctypes.c_uint32(_action(rule["action"],
                                                   rule.get("errnoRet", 1))), number, len(args),
                                                   (Argument * len(args))(*args))  # fmt: skip
        with tempfile.TemporaryFile() as file:
            library.seccomp_export_bpf(context, file.fileno())
            file.seek(0)
            program = file.read()
        library.seccomp_release(context)
        return program


def _action(name: str, error: int) -> int:
    return 0x7FFF0000 if name == "SCMP_ACT_ALLOW" else 0x00050000 | error


def timed(work: Callable[[], object], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return statistics.median(took) * 1000


def under(program: bytes, rounds: int) -> tuple[float, list[float]]:
    """Milliseconds to load it, nanoseconds a call."""
    table = numbers(os.uname().machine)
    calls = json.dumps([[table[name], argument] for name, argument in CALLS.values()])
    answers = [json.loads(subprocess.run([sys.executable, "-I", "-c", LOAD, str(ROOT), calls], input=program,
                                         capture_output=True, check=True).stdout) for _ in range(rounds)]  # fmt: skip
    return (statistics.median(answer[0] for answer in answers) * 1000,
            [min(column) * 1e9 for column in zip(*(answer[1] for answer in answers), strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    profile = seccomp.default_profile(capabilities.DOCKER)
    narrow = seccomp.default_profile(capabilities.DEFAULT, older=False)
    peer = Peer()
    programs = {"Seawall": seccomp.compile_profile(profile), "libseccomp": peer.compile(profile),
                "Seawall's default": seccomp.compile_profile(narrow)}  # fmt: skip
    costs = {"Seawall": timed(lambda: seccomp.compile_profile(profile), rounds),
             "libseccomp": timed(lambda: peer.compile(profile), rounds),
             "Seawall's default": timed(lambda: seccomp.compile_profile(narrow), rounds)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Programs(folder).of(narrow)
        known = timed(lambda: Programs(folder).of(narrow), rounds)
    memory = Programs()
    memory.of(narrow)
    print(f"compile, ms: {', '.join(f'{name} {cost:.2f}' for name, cost in costs.items())}")
    print(f"found again, ms: in a folder {known:.3f}, in memory {timed(lambda: memory.of(narrow), rounds):.3f}")
    bare, plain = under(b"", max(3, rounds // 4))
    print(f"| | instructions | load, ms | {' | '.join(CALLS)} |\n|---|---|---|{'---|' * len(CALLS)}")
    print(f"| no filter | | | {' | '.join(f'{cost:.0f} ns' for cost in plain)} |")
    for name, program in programs.items():
        loading, found = under(program, max(3, rounds // 4))
        more = " | ".join(f"+{cost - base:.0f} ns" for cost, base in zip(found, plain, strict=True))
        print(f"| {name} | {len(program) // 8} | {loading - bare:.2f} | {more} |")


if __name__ == "__main__":
    main()
