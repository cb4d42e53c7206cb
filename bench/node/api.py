"""create, start, stop and rm at the API, a hundred starts at once, the list of a thousand, and memory: beside Docker.

    sudo .venv/bin/python -m bench.node.api --image ../shared/images/fanal-alpine-310.tar.gz

Both engines in one run, on tmpfs, in a network and mount namespace of their own, the same requests by the same client
(an HTTP connection kept open over the unix socket). Prints medians in milliseconds and ratios (Docker / ours).
"""

import argparse
import http.client
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.node.run import NAME, both_engines

ENDS = "trap 'exit 0' TERM; sleep 600 & wait"
"""Process 1 of a container hears SIGTERM only if it asks for it."""


class Engine(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.request(method, f"/v1.41{path}", json.dumps(body) if body is not None else None, headers)
        response = self.getresponse()
        text = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {text!r}")
        return json.loads(text) if text.strip().startswith((b"{", b"[")) else None

    def create(self, network: str = "bridge") -> str:
        body = {"Image": NAME, "Cmd": ["sh", "-c", ENDS], "HostConfig": {"NetworkMode": network}}
        return str(self.ask("POST", "/containers/create", body)["Id"])


def milliseconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def one_after_another(engine: Engine, rounds: int) -> dict[str, float]:
    spans: dict[str, list[float]] = {"create": [], "start": [], "stop": [], "rm": []}
    made: list[str] = []
    for number in range(rounds + 3):
        times = {
            "create": milliseconds(lambda: made.append(engine.create())),
            "start": milliseconds(lambda: engine.ask("POST", f"/containers/{made[-1]}/start")),
            "stop": milliseconds(lambda: engine.ask("POST", f"/containers/{made[-1]}/stop?t=10")),
            "rm": milliseconds(lambda: engine.ask("DELETE", f"/containers/{made[-1]}")),
        }
        if number >= 3:
            for name, value in times.items():
                spans[name].append(value)
    return {name: statistics.median(values) for name, values in spans.items()}


def at_once(path: Path, count: int, daemons: list[str]) -> dict[str, float]:
    engines = [Engine(path) for _ in range(count)]
    made = [engines[0].create() for _ in range(count)]
    out = {}
    with ThreadPoolExecutor(count) as pool:
        def all_of(method: str, suffix: str) -> None:
            list(pool.map(lambda n: engines[n].ask(method, f"/containers/{made[n]}{suffix}"), range(count)))

        out[f"{count} starts at once"] = milliseconds(lambda: all_of("POST", "/start"))
        out["MiB resident then"] = sum(map(resident, daemons))
        out[f"{count} removals at once"] = milliseconds(lambda: all_of("DELETE", "?force=1"))
    for engine in engines:
        engine.close()
    return out


def listing(path: Path, count: int) -> dict[str, float]:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Engine(path).create("none"), range(count)))
        engine = Engine(path)
        spans = [milliseconds(lambda: engine.ask("GET", "/containers/json?all=1")) for _ in range(9)]
        list(pool.map(lambda one: Engine(path).ask("DELETE", f"/containers/{one}"), made))
    return {f"list of {count}": statistics.median(spans)}


def resident(command: str) -> float:
    """Of the processes whose first words these are; shims and monitors are counted elsewhere (launch.py)."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if folder.name.isdigit() and command in words and "shim" not in words.split(" ")[0]:
                status = (folder / "status").read_text()
                total += int(status.split("VmRSS:")[1].split()[0])
        except (OSError, IndexError):
            continue
    return total / 1024


def measure(path: Path, arguments: argparse.Namespace, daemons: list[str]) -> dict[str, float]:
    engine = Engine(path)
    engine.request("POST", f"/v1.41/images/create?fromImage={NAME.rpartition(':')[0]}&tag=latest")
    assert b"error" not in engine.getresponse().read()
    return {
        **one_after_another(engine, arguments.rounds),
        **at_once(path, arguments.parallel, daemons),
        **listing(path, arguments.many),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="a docker-archive (.tar or .tar.gz)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--parallel", type=int, default=100)
    parser.add_argument("--many", type=int, default=1000)
    arguments = parser.parse_args()
    with both_engines(arguments.image) as (root, ours, theirs):
        mine = measure(ours, arguments, [f"seawalld --home {root}"])
        peer = measure(theirs, arguments, [f"dockerd --data-root {root}", f"containerd --config {root}"])
    print(f"{'':24} {'Seawall':>10} {'Docker':>10} {'ratio':>6}")
    for name, value in mine.items():
        print(f"{name:24} {value:10.1f} {peer[name]:10.1f} {peer[name] / value:5.1f}x")


if __name__ == "__main__":
    main()
