"""What only a Postgres does: connections that are cut, writers that wait for each other, servers that start late."""

import asyncio
import signal
import sys
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName
from storage.metadata import repositories, topics
from storage.metadata.engine import DatabaseUnavailable, TransactionConflict, open_database, retried
from storage.metadata.options import PostgresOptions

ONE, TWO = RepositoryName.parse("one"), RepositoryName.parse("two")


@pytest.fixture
async def url(postgres) -> str:
    return postgres.url(await postgres.new_database())


@pytest.fixture
async def database(url):
    async with open_database(url, options=PostgresOptions(connections=4, lock_timeout=1.0)) as opened:
        yield opened


async def backend(tx) -> int:
    return await tx.scalar(sa.text("SELECT pg_backend_pid()"))


async def end(postgres, *pids: int) -> None:
    connection = await postgres.connect()
    try:
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend($1)", pid)
    finally:
        await connection.close()


async def names(database) -> set[str]:
    async with database.read() as tx:
        return set(await tx.scalars(sa.text("SELECT name FROM repositories")))


async def test_a_nul_is_the_fault_of_who_wrote_it(database):
    with pytest.raises(InvalidArgument, match="NUL"):
        async with database.read() as tx:
            await repositories.catalog(tx, 10, "a\0")


async def test_a_connection_cut_in_mid_transaction_leaves_nothing(database, postgres):
    with pytest.raises(DatabaseUnavailable):
        async with database.write() as tx:
            await repositories.ensure(tx, ONE, database.now())
            await end(postgres, await backend(tx))
            await repositories.ensure(tx, TWO, database.now())
    assert await names(database) == set()
    async with database.write() as tx:
        await repositories.ensure(tx, TWO, database.now())
    assert await names(database) == {"two"}


async def test_connections_that_were_cut_while_idle_are_not_used(database, postgres, until):
    async with database.read() as first, database.read() as second:
        pids = [await backend(first), await backend(second)]
    await end(postgres, *pids)

    async def gone() -> bool:
        connection = await postgres.connect()
        try:
            return not await connection.fetch("SELECT 1 FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids)
        finally:
            await connection.close()

    await until(gone)
    await asyncio.sleep(0)  # the event loop reads that they were closed
    async with database.read() as tx:
        assert await backend(tx) not in pids


async def test_no_memory_counts_while_nobody_listens(database, postgres, until):
    async def mark() -> int | None:
        await database.changes.look()
        return database.changes.mark("!accounts")

    before = await until(mark)
    connection = await postgres.connect()
    try:
        for _ in range(5):
            listening = [row[0] for row in await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_visible_in_snapshot%' AND pid <> pg_backend_pid()")]
            if listening:
                break
            await mark()
        await end(postgres, *listening)
    finally:
        await connection.close()
    assert await mark() in (None, before + 1), "what was remembered before must not be believed after"
    assert await until(mark) > before


async def test_writers_beside_each_other_do_not_wait_and_a_lonely_one_does(database):
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(name: RepositoryName) -> None:
        async with database.write(beside=True) as tx:
            await repositories.ensure_locked(tx, name, database.now())
            entered.set()
            await go_on.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold(ONE))
        await entered.wait()
        async with asyncio.timeout(5), database.write(beside=True) as tx:
            await repositories.ensure_locked(tx, TWO, database.now())
        with pytest.raises(DatabaseUnavailable):  # after lock_timeout
            async with database.write():
                pytest.fail("not alone")
        go_on.set()
    async with database.write() as tx:
        assert await repositories.find(tx, ONE) is not None


async def test_a_deadlock_is_tried_again(database):
    for name in (ONE, TWO):
        async with database.write() as tx:
            await repositories.ensure(tx, name, database.now())
    attempts = 0
    both = asyncio.Barrier(2)

    async def crosswise(first: RepositoryName, second: RepositoryName) -> None:
        tried = False

        @retried
        async def work() -> None:
            nonlocal attempts, tried
            attempts += 1
            async with database.write(beside=True) as tx:
                await tx.execute(sa.text("SET LOCAL deadlock_timeout = '50ms'"))
                await repositories.lock(tx, first)
                if not tried:
                    tried = True
                    await both.wait()
                await repositories.lock(tx, second)

        await work()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(crosswise(ONE, TWO))
        group.create_task(crosswise(TWO, ONE))
    assert attempts == 3
    assert issubclass(TransactionConflict, Exception)


async def test_a_killed_process_leaves_no_lock_behind(database, url):
    program = ("import asyncio, sys\nfrom storage.metadata.engine import open_database\n"
               "async def main():\n"
               "    async with open_database(sys.argv[1], migrate=False) as database, database.write():\n"
               "        print('locked', flush=True)\n        await asyncio.Event().wait()\n"
               "asyncio.run(main())\n")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"locked\n"
    process.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    async with database.write() as tx:
        await repositories.ensure(tx, ONE, database.now())
    assert time.monotonic() - begun < 1.0, "lock_timeout would have come first"
    await process.wait()


async def test_a_read_sees_one_state(database):
    async with database.read() as tx:
        assert await repositories.find(tx, ONE) is None
        async with database.write() as other:
            await repositories.ensure(other, ONE, database.now())
        assert await repositories.find(tx, ONE) is None
    assert await names(database) == {"one"}


async def test_one_that_starts_late_is_waited_for(postgres_programs):
    from tests.postgres import prepared

    with prepared(postgres_programs) as server:
        async def use() -> None:
            async with open_database(server.url("postgres"), patience=timedelta(seconds=60)) as database, \
                    database.write() as tx:
                await topics.outdate(tx, "accounts")

        waiting = asyncio.create_task(use())
        with pytest.raises(DatabaseUnavailable):
            async with open_database(server.url("postgres")):
                pytest.fail("it was not started")
        assert not waiting.done()
        await asyncio.to_thread(server.start)
        await waiting


async def test_a_writer_that_waited_sees_what_it_waited_for_whatever_the_servers_default(postgres):
    name = await postgres.new_database()
    connection = await postgres.connect(name)
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    repo = RepositoryName.parse("team/app")
    try:
        async with open_database(postgres.url(name)) as one, open_database(postgres.url(name)) as other:
            async def wait_and_look() -> int | None:
                async with other.write(beside=True) as tx:
                    return await repositories.find(tx, repo)

            async with one.write() as tx:
                looking = asyncio.create_task(wait_and_look())
                deadline = time.monotonic() + 10
                while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
                made = await repositories.ensure(tx, repo, one.now())
            assert await looking == made
    finally:
        await connection.close()
