"""`seawall stats`: what containers use, one table that is drawn again each second, or once."""

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import click

from node.cli.output import FORMAT_HELP, Column, binary_size, human_size, print_list, short_id
from node.cli.session import Session, session
from node.client import BrokenAnswer, Client, DaemonError

_COLUMNS = [
    Column("ID", "CONTAINER ID"), Column("Name", "NAME"), Column("CPUPerc", "CPU %"),
    Column("MemUsage", "MEM USAGE / LIMIT"), Column("MemPerc", "MEM %"), Column("NetIO", "NET I/O"),
    Column("BlockIO", "BLOCK I/O"), Column("PIDs", "PIDS"),
]  # fmt: skip
_CLEAR = "\033[H\033[J"
_PATIENCE = 5.0


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("--no-stream", is_flag=True, help="One look, and no more.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
@session
def stats(
    session: Session, containers: Sequence[str], everything: bool, format_text: str, no_stream: bool, no_trunc: bool
) -> None:
    """Show what containers use."""
    board = Board(session.client)
    named = list(containers)
    for name in named:
        session.client.json("GET", f"/containers/{name}/json")  # one that does not exist is an error at once
    while True:
        board.follow(named or _known(session.client, everything=everything), once=no_stream)
        if no_stream:
            board.wait_for_all()
        rows = [row(look, whole=no_trunc) for look in board.looks()]
        if not no_stream and sys.stdout.isatty() and format_text != "json":
            click.echo(_CLEAR, nl=False)
        print_list(rows, _COLUMNS, format_text=format_text, quiet="")
        if no_stream or (named and board.over()):
            return
        sys.stdout.flush()
        time.sleep(1)


def _known(client: Client, *, everything: bool) -> list[str]:
    return [str(found["Id"]) for found in reversed(client.json("GET", "/containers/json", {"all": everything}))]


class Board:
    """The last look at each container, kept by a thread a container."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._looks: dict[str, Mapping[str, Any] | None] = {}
        self._threads: dict[str, threading.Thread] = {}

    def follow(self, names: Sequence[str], *, once: bool) -> None:
        """These and no others, in this order."""
        self._looks = {name: self._looks.get(name) for name in names}
        for name in names:
            if name not in self._threads:
                thread = threading.Thread(target=self._read, args=(name, once), daemon=True)
                self._threads[name] = thread
                thread.start()

    def wait_for_all(self) -> None:
        for thread in self._threads.values():
            thread.join(_PATIENCE)

    def looks(self) -> list[Mapping[str, Any]]:
        return [look for look in self._looks.values() if look is not None]

    def over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads.values())

    def _read(self, name: str, once: bool) -> None:
        with suppress(DaemonError, BrokenAnswer, OSError, json.JSONDecodeError):
            for look in self._client.lines("GET", f"/containers/{name}/stats", {"stream": not once}):
                if name in self._looks:
                    self._looks[name] = look
        if not once and name in self._looks:
            self._looks[name] = None


def row(look: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    memory, running = look["memory_stats"], bool(look["memory_stats"])
    used = memory_used(memory) if running else 0
    limit = memory.get("limit", 0)
    received, sent = network_bytes(look)
    read, written = block_bytes(look)
    return {
        "Container": short_id(look["id"], whole=whole),
        "ID": short_id(look["id"], whole=whole),
        "Name": look["name"].removeprefix("/"),
        "CPUPerc": f"{cpu_percent(look):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "PIDs": look["pids_stats"].get("current", 0),
    }


def cpu_percent(look: Mapping[str, Any]) -> float:
    """Of one processor, so 200 % are two."""
    now, before = look["cpu_stats"], look["precpu_stats"]
    spent = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if spent <= 0 or passed <= 0:
        return 0.0
    return float(spent / passed * (now.get("online_cpus") or 1) * 100)


def memory_used(memory: Mapping[str, Any]) -> int:
    """Without the cache that is given back first, which the two cgroup versions name differently."""
    usage = int(memory["usage"])
    for name in ("total_inactive_file", "inactive_file"):
        inactive = memory.get("stats", {}).get(name)
        if inactive is not None and inactive < usage:
            return usage - int(inactive)
    return usage


def network_bytes(look: Mapping[str, Any]) -> tuple[int, int]:
    networks = (look.get("networks") or {}).values()
    return sum(item["rx_bytes"] for item in networks), sum(item["tx_bytes"] for item in networks)


def block_bytes(look: Mapping[str, Any]) -> tuple[int, int]:
    found = {"read": 0, "write": 0}
    for entry in look["blkio_stats"].get("io_service_bytes_recursive") or ():
        operation = entry["op"].lower()
        if operation in found:
            found[operation] += entry["value"]
    return found["read"], found["write"]
