"""The attempts of `probe.py`, and amicontained where it is given, in a container as it comes: ours beside Docker's.

    sudo .venv/bin/python -m tests.escapes.compare [--amicontained FILE]

Prints a Markdown table. Both engines are started for it and ended; containers get no network.
(amicontained: Go module github.com/genuinetools/amicontained, v0.4.9.)
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from node.linux.syscall_numbers import numbers
from tests.e2e.conftest import BIN, sweep_host
from tests.escapes.conftest import Answer, borrowed, disk, prober

UNDER_A_TRACER = """
import ctypes, os, sys
child = os.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    pid, status = os.waitpid(-1, 0x40000000)
    if os.WIFSTOPPED(status):
        ctypes.CDLL(None).ptrace(7, pid, None, ctypes.c_void_p(os.WSTOPSIG(status) % 5 and os.WSTOPSIG(status)))
    elif pid == child:
        break
"""
"""amicontained tries every system call with zeros, ptrace too, which means: let my parent trace me. So that one must."""

PYTHON = (str(Path(sys.executable).resolve()), "-I", "-S")

Engine = list[str]
"""A docker command with its --host."""


@contextlib.contextmanager
def program(log: Path, *words: str) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def engines() -> Iterator[dict[str, Engine]]:
    root = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="seawall-escapes-"))
    try:
        with (
            program(root / "node.log", str(BIN / "seawalld"), "--home", str(root / "node"), "--socket", str(root / "n")),
            program(root / "docker.log", "dockerd", "--data-root", str(root / "data"), "--exec-root", str(root / "exec"),
                    "--pidfile", str(root / "pid"), "-H", f"unix://{root}/d", "--bridge=none", "--iptables=false"),
        ):  # fmt: skip
            found = {"Seawall": ["docker", "-H", f"unix://{root}/n"], "Docker": ["docker", "-H", f"unix://{root}/d"]}
            for engine in found.values():
                until_it_answers(engine)
                subprocess.run([*engine, "import", "-", "prober"], input=prober(), check=True, capture_output=True)
            try:
                yield found
            finally:
                for engine in found.values():
                    left = subprocess.run([*engine, "ps", "-aq"], capture_output=True, text=True, check=False).stdout.split()
                    subprocess.run([*engine, "rm", "-f", "none", *left], capture_output=True, check=False)
    finally:
        sweep_host(root / "node")
        shutil.rmtree(root, ignore_errors=True)


def until_it_answers(engine: Engine) -> None:
    for _ in range(600):
        if subprocess.run([*engine, "version"], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    sys.exit(f"{engine[-1]} does not answer")


def run(engine: Engine, flags: list[str], *words: str) -> str:
    binds = [word for bind in borrowed() for word in ("-v", bind)]
    return subprocess.run([*engine, "run", "--rm", "--network", "none", *flags, *binds, "prober", *words],
                          check=True, capture_output=True, text=True, timeout=120).stdout


def attempts(engine: Engine, flags: list[str]) -> Answer:
    asked = {"calls": numbers(platform.machine()), "victim": os.getpid(), "disk": disk(), "abstract": "none",
             "key": "none", "root": [os.stat("/").st_dev, os.stat("/").st_ino], "apart": False}
    said = run(engine, flags, *PYTHON, "/probe.py", json.dumps(asked))
    return {name: (verdict, detail) for name, (verdict, detail) in json.loads(said).items()}


def introspected(engine: Engine, flags: list[str], tool: Path) -> dict[str, str]:
    """What amicontained says, by its own words."""
    said = run(engine, ["-v", f"{tool.resolve()}:/amicontained:ro", *flags], *PYTHON, "-c", UNDER_A_TRACER, "/amicontained")
    found = {}
    for name in ("user", "AppArmor Profile", "Seccomp", "BOUNDING ->"):
        match = re.search(rf"{name}:? *(.*)", said)
        found[f"amicontained: {name.removesuffix(' ->')}"] = match[1].strip() if match else "-"
    match = re.search(r"Blocked Syscalls \((\d+)\)", said)
    found["amicontained: blocked system calls"] = match[1] if match else "0"
    bounding = found.pop("amicontained: BOUNDING")
    found["amicontained: capabilities"] = str(len(bounding.split()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--amicontained", type=Path)
    tool = parser.parse_args().amicontained
    columns: dict[str, dict[str, str]] = {}
    with engines() as found:
        cases = {"Seawall": (found["Seawall"], []), "Seawall, `--isolation docker`":
                 (found["Seawall"], ["--isolation", "docker"]), "Docker": (found["Docker"], [])}
        for name, (engine, flags) in cases.items():
            tried = attempts(engine, flags)
            columns[name] = {one: verdict if verdict != "open" else "**open**" for one, (verdict, _) in tried.items()}
            works = sum(verdict == "open" for verdict, _ in tried.values())
            columns[name]["attempts that work"] = f"{works} of {sum(v != 'absent' for v, _ in tried.values())}"
            if tool is not None:
                columns[name].update(introspected(engine, flags, tool))
    print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in next(iter(columns.values())):
        cells = [column.get(row, "") for column in columns.values()]
        if "**open**" in cells or row.startswith(("amicontained", "attempts")):
            print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
