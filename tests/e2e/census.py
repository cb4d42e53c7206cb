"""What a node could leave behind, counted: everything of it that the kernel or the disk holds.

Only what bears the node's own names counts (home, cgroup parent, table, bridge), so other nodes on the machine do not.
"""

import json
import os
import subprocess
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.settings import Settings

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts")


@dataclass(frozen=True)
class Census:
    mounts: tuple[str, ...]
    namespaces: "Counter[str]"
    links: tuple[str, ...]
    rules: int
    cgroups: tuple[str, ...]
    processes: "Counter[str]"
    files: tuple[str, ...]
    descriptors: int

    def difference(self, later: "Census") -> dict[str, object]:
        """What is more than before, by kind."""
        found: dict[str, object] = {}
        for kind in ("mounts", "links", "cgroups", "files"):
            if more := sorted(set(getattr(later, kind)) - set(getattr(self, kind))):
                found[kind] = more[:10]
        for kind in ("namespaces", "processes"):
            if more_of := getattr(later, kind) - getattr(self, kind):
                found[kind] = dict(more_of)
        if later.rules > self.rules:
            found["rules"] = later.rules - self.rules
        # A pooled connection or a thread's pipe may come and go.
        if later.descriptors > self.descriptors + 8:
            found["descriptors"] = later.descriptors - self.descriptors
        return found


def take(home: Path, daemon: int) -> Census:
    settings = Settings.make(home)
    ours = family(settings, daemon)
    return Census(
        mounts=tuple(line.split()[4] for line in _text("/proc/self/mountinfo").splitlines() if str(home) in line),
        namespaces=_namespaces(ours),
        links=_links(settings),
        rules=_rules(settings),
        cgroups=tuple(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{settings.cgroup_parent}/*")
                      if path.is_dir()),
        processes=Counter(_text(f"/proc/{pid}/comm").strip() for pid in ours),
        files=tuple(str(path) for folder in (settings.containers, settings.volumes, *settings.snapshots.glob("overlay/[cw]"))
                    if folder.is_dir() for path in folder.iterdir()),
        descriptors=_descriptors(daemon),
    )  # fmt: skip


def family(settings: Settings, daemon: int) -> list[int]:
    """The daemon, its launcher and monitors (whoever's child they have become), and all in the node's cgroups."""
    parents, found = {}, set()
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _text(f"/proc/{name}/stat")):
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
            if str(settings.home) in _text(f"/proc/{name}/cmdline") or f"/{settings.cgroup_parent}/" in _text(
                f"/proc/{name}/cgroup"
            ) or (_text(f"/proc/{name}/comm").strip() == "seawall-monitor" and str(settings.containers) in _text(
                f"/proc/{name}/mountinfo"
            )):
                found.add(int(name))
    found.add(daemon)
    for pid in parents:
        line, walked = pid, []
        while line in parents and line not in found:
            walked.append(line)
            line = parents[line]
        if line in found:
            found.update(walked)
    return sorted(found)


def _descriptors(pid: int) -> int:
    """Without the databases', whose readers are pooled."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            count += ".db" not in os.readlink(f"/proc/{pid}/fd/{name}")
    return count


def _namespaces(pids: list[int]) -> "Counter[str]":
    seen = set()
    for pid in pids:
        for kind in NAMESPACES:
            try:
                seen.add((kind, os.readlink(f"/proc/{pid}/ns/{kind}")))
            except OSError:
                continue
    return Counter(kind for kind, _ in seen)


def _links(settings: Settings) -> tuple[str, ...]:
    """Interfaces that stand on the node's bridges, and those bridges."""
    listed = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    mine = {item["ifname"] for item in listed if settings.tag in item["ifname"]}
    return tuple(item["ifname"] for item in listed if item["ifname"] in mine or item.get("master") in mine)


def _rules(settings: Settings) -> int:
    """Lines of the node's tables, maps and sets with their elements too."""
    count = 0
    tables = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, check=False).stdout
    for item in json.loads(tables or b"{}").get("nftables", ()):
        table = item.get("table", {})
        if settings.tag in table.get("name", ""):
            text = subprocess.run(["nft", "list", "table", table["family"], table["name"]], capture_output=True,
                                  check=False).stdout  # fmt: skip
            count += text.count(b"\n") + text.count(b",")
    return count


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
