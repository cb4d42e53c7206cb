"""A Postgres of our own: started once, in a temporary folder, reached through a socket in it, stopped at the end."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest


def _folder_of_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    named = shutil.which("postgres")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The folder of the server's socket."""
    programs = _folder_of_programs()
    if programs is None:
        reason = "needs postgresql (Debian package)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    # The server refuses to run as root, so root becomes somebody who owns the folder; the path of a socket is short.
    folder = Path(tempfile.mkdtemp(prefix="seawall-pg-"))
    options = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    if options:
        shutil.chown(folder, "nobody", "nogroup")

    def run(program: str, *arguments: str | Path) -> None:
        subprocess.run([programs / program, "-D", folder / "data", *arguments], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, env={"LC_ALL": "C", "PATH": os.defpath}, **options)

    try:
        run("initdb", "-U", "seawall", "--no-sync", "-A", "trust", "--locale", "C", "-E", "UTF8")
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-w", "-l", folder / "log", "-o", settings, "start")
        try:
            yield folder
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


NUMBERS = iter(range(1000))


async def new_database(folder: Path) -> str:
    """The URL of an empty one."""
    name = f"test{next(NUMBERS)}"
    connection = await asyncpg.connect(host=str(folder), user="seawall", database="postgres")
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"postgresql+asyncpg://seawall@/{name}?host={folder}"


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/content.db"
    return await new_database(request.getfixturevalue("postgres"))
