"""Turning on what lets containers reach other networks, without making the host a router between its own.

Linux forwards between all interfaces or none. Where it did not before this node came, packets from one of the host's
other interfaces to another go on being dropped, by a chain of this node's own. Interfaces that come later have an owner
who wants them (a VPN, another engine, virtual machines) and are left alone. Everything here blocks.
"""

import contextlib
import json
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any

from node.linux.nftables import Nftables

SWITCHES = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
FAMILIES = {4: "ip", 6: "ip6"}
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Forwarding:
    """`note` remembers what was turned on, and on which boot: the kernel's switches do not outlive it.

    `ours`: interfaces that this node makes, whatever happens. Raises OSError.
    """

    def __init__(self, note: Path, tables: Nftables, table: str, ours: Collection[str]) -> None:
        self._note = note
        self._tables = tables
        self._table = table
        self._ours = ours

    def enable(self, version: int) -> None:
        """The fence stands before the gate is open. Done again, it is renewed."""
        noted = self._read()
        if not _on(version):
            noted[str(version)] = sorted(self._others())
            self._write(noted)
        if str(version) in noted:
            self._tables.run(self._fence(version, noted[str(version)]))
        if not _on(version):
            if version == 6:
                _go_on_hearing_routers()
            Path("/proc/sys", SWITCHES[version]).write_text("1")

    def disable(self) -> None:
        """The node has nothing left that needs it. Where others came meanwhile, they may need it now."""
        noted = self._read()
        for version in FAMILIES:
            before = noted.pop(str(version), None)
            if before is None:
                continue
            if self._others() <= set(before):
                Path("/proc/sys", SWITCHES[version]).write_text("0")
            self._tables.run(self._remove(version))
        with contextlib.suppress(FileNotFoundError):
            self._note.unlink()

    def _others(self) -> set[str]:
        # Not /sys/class/net: that is of the network namespace in which it was mounted.
        return {name for _, name in socket.if_nameindex() if name not in (*self._ours, "lo")}

    def _fence(self, version: int, interfaces: list[str]) -> str:
        elements = ", ".join(f'"{name}"' for name in interfaces)
        body = f"    iifname {{ {elements} }} oifname {{ {elements} }} drop\n" if interfaces else ""
        return (f"{self._remove(version)}table {FAMILIES[version]} {self._table} {{\n  chain fence {{\n"
                f"    type filter hook forward priority filter; policy accept;\n{body}  }}\n}}\n")

    def _remove(self, version: int) -> str:
        family = FAMILIES[version]
        return f"table {family} {self._table} {{ }}\ndelete table {family} {self._table}\n"

    def _read(self) -> dict[str, Any]:
        try:
            noted = json.loads(self._note.read_text())
        except (OSError, ValueError):
            noted = None
        boot = BOOT.read_text().strip()
        return noted if isinstance(noted, dict) and noted.get("boot") == boot else {"boot": boot}

    def _write(self, noted: dict[str, Any]) -> None:
        beside = self._note.with_suffix(".new")
        beside.write_text(json.dumps(noted))
        beside.rename(self._note)


def _on(version: int) -> bool:
    try:
        return Path("/proc/sys", SWITCHES[version]).read_text().strip() == "1"
    except FileNotFoundError:  # a kernel without IPv6 has nothing to turn on
        return True


def _go_on_hearing_routers() -> None:
    """A host that forwards no longer takes its own address and route from router advertisements, unless told so."""
    for setting in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
        with contextlib.suppress(OSError):
            if setting.read_text().strip() == "1":
                setting.write_text("2")
