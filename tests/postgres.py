"""A Postgres of our own in a temporary folder, reached through a socket in it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

NUMBERS = count(1)


def programs() -> Path | None:
    """The folder of the server's programs; None: it is not there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    named = shutil.which("postgres")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


@dataclass
class Postgres:
    """`folder` has the socket."""

    folder: Path
    programs: Path
    # The server refuses to run as root, so root becomes somebody who owns the folder.
    somebody: dict[str, Any] = field(default_factory=lambda: (
        {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}))

    def run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run([self.programs / program, "-D", self.folder / "data", *arguments], check=True, cwd=self.folder,
                       stdout=subprocess.DEVNULL, env={"LC_ALL": "C", "PATH": os.defpath}, **self.somebody)

    def start(self) -> None:
        settings = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=200"
        self.run("pg_ctl", "-w", "-l", self.folder / "log", "-o", settings, "start")

    def stop(self) -> None:
        """As a crash would."""
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")

    def url(self, name: str) -> str:
        return f"postgresql+asyncpg://seawall@/{name}?host={self.folder}"

    async def connect(self, name: str = "postgres") -> Any:
        return await asyncpg.connect(host=str(self.folder), user="seawall", database=name)

    async def new_database(self) -> str:
        """The name of an empty one."""
        name = f"test{next(NUMBERS)}"
        connection = await self.connect()
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return name


@contextlib.contextmanager
def prepared(folder_of_programs: Path) -> Iterator[Postgres]:
    """Not started yet; stopped at the end if it runs then."""
    folder = Path(tempfile.mkdtemp(prefix="seawall-pg-"))  # the path of a socket must be short
    server = Postgres(folder, folder_of_programs)
    try:
        if server.somebody:
            shutil.chown(folder, server.somebody["user"], server.somebody["group"])
        server.run("initdb", "-U", "seawall", "--no-sync", "-A", "trust", "--locale", "C", "-E", "UTF8")
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)
