"""A receiver of webhooks that a test makes good or bad, and couriers that do not wait long."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from ocispec.reference import RepositoryName, Tag
from registry.notifications.courier import Pace
from registry.notifications.dispatch import Dispatcher
from registry.notifications.endpoints import Endpoint
from registry.notifications.envelopes import Source
from storage.events import Action, Event, Origin
from storage.metadata import events
from storage.metadata.engine import Database, open_database

QUICK = Pace(poll=timedelta(milliseconds=10), lease=timedelta(seconds=1), timeout=timedelta(seconds=0.4),
             persist=timedelta(0), first_pause=timedelta(milliseconds=20), dead_after=timedelta(days=1))
SOURCE = Source("https://registry.example", "http", "instance-1", "host:5000")
REPO = RepositoryName.parse("team/app")
NUMBERS = iter(range(1000))


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def request(self) -> str:
        """The name of the request whose event this is: what tests tell events by."""
        document = self.document
        data = document["events"][0] if "events" in document else document.get("data", document)
        return data["request"]["id"]


Answer = Callable[[int, Received], Awaitable[web.Response | int]]


@dataclass
class Receiver:
    """`answer(number, received)` decides what the number-th request gets; by default 200."""

    url: str = ""
    got: list[Received] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    answer: Answer | None = None

    async def handle(self, request: web.BaseRequest) -> web.Response:
        received = Received(dict(request.headers), await request.read())
        self.got.append(received)
        answer: web.Response | int = 200
        if self.answer is not None:
            answer = await self.answer(len(self.got), received)
        if isinstance(answer, int):
            answer = web.Response(status=answer)
        if 200 <= answer.status < 300:
            self.taken.append(received.request)
        return answer


@pytest.fixture
async def receivers() -> AsyncIterator[Callable[[], Awaitable[Receiver]]]:
    running: list[web.ServerRunner] = []

    async def start() -> Receiver:
        receiver = Receiver()
        runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
        running.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        return receiver

    yield start
    for runner in running:
        await runner.cleanup()


@pytest.fixture
async def receiver(receivers) -> Receiver:
    return await receivers()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest revision, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "content.db"
    migrate(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Any) -> Any:
    """The server, with such a database `hooks` in it."""
    apart(execute(postgres, "CREATE DATABASE hooks"))
    migrate(postgres.url("hooks"))
    return postgres


def migrate(url: str) -> None:
    async def run() -> None:
        async with open_database(url):
            pass

    apart(run())


def apart(work: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own: fixtures of the session are asked for by tests that run in one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def execute(server: Any, sql: str) -> None:
    connection = await server.connect()
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request, tmp_path: Path) -> str:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "content.db")
        return f"sqlite+aiosqlite:///{tmp_path}/content.db"
    server = request.getfixturevalue("migrated_postgres")
    name = f"hooks{next(NUMBERS)}"
    await execute(server, f"CREATE DATABASE {name} TEMPLATE hooks")
    return server.url(name)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url, migrate=False) as opened:
        yield opened


@pytest.fixture
def happen(database: Database):
    """`await happen("a", "b")`: events of requests of these names."""

    async def record(*names: str, action: Action = Action.MANIFEST_PUSH, repo: RepositoryName | None = REPO) -> None:
        for name in names:
            event = Event(action, Origin("mia", name, "192.0.2.7", "docker/27", "PUT", "registry.example"), repo,
                          tag=Tag("v1"))
            async with database.write() as tx:
                await events.record(tx, event, database.now())

    return record


def endpoint(receiver: Receiver, name: str = "hook", **options: Any) -> Endpoint:
    return Endpoint(name, URL(receiver.url), options.pop("secret", "a secret of some length"), allow_private=True,
                    **options)


Dispatching = Callable[..., AbstractAsyncContextManager[Dispatcher]]


@pytest.fixture
def dispatching(database: Database, until) -> Dispatching:
    """`async with dispatching(endpoint, …)`: couriers at work, who have found where the log ends."""

    @asynccontextmanager
    async def run(*endpoints: Endpoint, pace: Pace = QUICK, on: Database | None = None) -> AsyncIterator[Dispatcher]:
        dispatcher = Dispatcher(on or database, endpoints, SOURCE, pace, lambda _well, _took: None)
        running = asyncio.create_task(dispatcher.run())
        try:
            from storage.metadata import webhooks

            async def claimed() -> bool:
                async with database.read() as tx:
                    return all([await webhooks.cursor(tx, one.name) for one in endpoints])

            await until(claimed)
            yield dispatcher
        finally:
            running.cancel()
            await asyncio.wait([running])

    return run


@pytest.fixture
def to():
    return endpoint


@pytest.fixture
def quick() -> Pace:
    return QUICK


@pytest.fixture
def source() -> Source:
    return SOURCE
