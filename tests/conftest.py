"""What every room's tests share: the material beside the checkout, the `root` marker, waiting with a deadline.

In CI (`CI=true`) nothing is skipped for what the machine lacks: a skip there would be a test that nobody runs.
"""

import asyncio
import inspect
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from storage.blobs.s3.options import S3Options
from tests import postgres as postgres_server
from tests import s3

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
CHECKOUT = Path(__file__).resolve().parents[1]


def lacking(reason: str) -> None:
    """Skip for what this machine lacks; fail in CI."""
    if CI:
        pytest.fail(f"{reason} (CI runs every test)", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        lacking("needs root on a Linux kernel")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of images, layers and tables that is too large for the repository."""
    named = os.environ.get("SEAWALL_SHARED", "")
    path = Path(named) if named else CHECKOUT.parent / "shared"
    if not path.is_dir():
        lacking(f"no shared material at {path}: set SEAWALL_SHARED")
    return path


@pytest.fixture
def postgres_programs() -> Path:
    found = postgres_server.programs()
    if found is None:
        lacking("needs postgresql (Debian package)")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """One for all tests: make a database of your own in it (`new_database`)."""
    programs = postgres_server.programs()
    if programs is None:
        lacking("needs postgresql (Debian package)")
    assert programs is not None
    with postgres_server.prepared(programs) as server:
        server.start()
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """Started by the first test that wants a bucket. Clients are made once for each sort: it takes longer than most
    tests."""
    from storage.blobs.s3 import bucket  # late: boto3 takes a while, and only some tests need it

    make, made = bucket._client, {}

    def client(options: S3Options) -> Any:
        sort = replace(options, bucket="", prefix="", spool=None, part_size=0)
        if sort not in made:
            made[sort] = make(options)
        return made[sort]

    with s3.running() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket, "_client", client)
        yield server


@pytest.fixture
def s3_options(s3_server: s3.S3Server, tmp_path: Path) -> S3Options:
    """A place in the bucket that no other test has, and small parts."""
    return S3Options(
        s3.BUCKET, prefix=f"{tmp_path.name}-{uuid.uuid4().hex}", endpoint=s3_server.endpoint, region="us-east-1",
        path_style=True, access_key=s3.ACCESS, secret_key=s3.SECRET, part_size=5 * s3.PART, spool=tmp_path)


class Until(Protocol):
    """`await until(check)`: the first true value of `check()`, polled; AssertionError after `within` seconds."""

    async def __call__(self, check: Callable[[], Any | Awaitable[Any]], *, within: float = 10.0,
                       what: str = "") -> Any: ...


@pytest.fixture
def until() -> Until:
    async def poll(check: Callable[[], Any | Awaitable[Any]], *, within: float = 10.0, what: str = "") -> Any:
        deadline = time.monotonic() + within
        while True:
            value = check()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:g} s: {what or inspect.getsource(check).strip()}")
            await asyncio.sleep(0.01)

    return poll


class WaitFor(Protocol):
    """`until` for tests that run without an event loop."""

    def __call__(self, check: Callable[[], Any], *, within: float = 10.0, what: str = "") -> Any: ...


@pytest.fixture
def wait_for() -> WaitFor:
    def poll(check: Callable[[], Any], *, within: float = 10.0, what: str = "") -> Any:
        deadline = time.monotonic() + within
        while not (value := check()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:g} s: {what or inspect.getsource(check).strip()}")
            time.sleep(0.01)
        return value

    return poll


class Tool(Protocol):
    """`tool("crane")`: the program's path, of `.tools/bin` (made by dev/gotools) or of the machine; skips without it."""

    def __call__(self, name: str) -> Path: ...


@pytest.fixture(scope="session")
def tool() -> Tool:
    def find(name: str) -> Path:
        built = CHECKOUT / ".tools" / "bin" / name
        found = str(built) if built.is_file() else shutil.which(name)
        if found is None:
            if shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin") is None:
                pytest.skip(f"no {name}: dev/gotools builds it where Go is present")
            lacking(f"no {name}: run dev/gotools .tools/bin")
        return Path(found)

    return find


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "seawall-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
