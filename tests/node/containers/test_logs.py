"""Reading logs back: order over rotated files, tail, times, streams, frames, following."""

import asyncio
import json

import pytest

from node.containers import clock
from node.containers.logs import read_log
from node.containers.model import LogQuery

BASE = 1_700_000_000 * 10**9


def line(number, text=None, stream="stdout"):
    entry = {"log": f"line {number}\n" if text is None else text, "stream": stream,
             "time": clock.written(BASE + number * 10**9)}  # fmt: skip
    return json.dumps(entry) + "\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c-json.log"


async def read(path, query=None, *, tty=True, ended=lambda: True):
    return b"".join([batch async for batch in read_log(path, query or LogQuery(), tty=tty, ended=ended)])


def words(*numbers):
    return "".join(f"line {number}\n" for number in numbers).encode()


async def test_rotated_files_come_oldest_first(path):
    path.with_name("c-json.log.2").write_text(line(1))
    path.with_name("c-json.log.1").write_text(line(2) + line(3))
    path.write_text(line(4))
    assert await read(path) == words(1, 2, 3, 4)


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 4, 5, 100])
async def test_tail_reaches_into_rotated_files(path, tail):
    path.with_name("c-json.log.1").write_text(line(1) + line(2))
    path.write_text(line(3) + line(4) + line(5))
    assert await read(path, LogQuery(tail=tail)) == words(*range(1, 6)[max(0, 5 - tail) :] if tail else ())


async def test_tail_over_many_blocks(path):
    path.write_text("".join(line(number) for number in range(5000)))
    assert await read(path, LogQuery(tail=3000)) == words(*range(2000, 5000))


async def test_times_bound_and_stamp(path):
    path.write_text("".join(line(number) for number in range(5)))
    query = LogQuery(since=BASE + 10**9, until=BASE + 3 * 10**9, timestamps=True)
    got = (await read(path, query)).decode().splitlines()
    assert got == [f"{clock.written(BASE + n * 10**9)} line {n}" for n in (1, 2, 3)]


async def test_streams_are_framed_and_chosen(path):
    path.write_text(line(1) + line(2, "oops", "stderr"))
    assert await read(path, tty=False) == b"\1\0\0\0\0\0\0\7line 1\n" + b"\2\0\0\0\0\0\0\4oops"
    assert await read(path, LogQuery(stdout=False), tty=False) == b"\2\0\0\0\0\0\0\4oops"


async def test_damaged_lines_are_passed_over(path):
    path.write_text(line(1) + '{"log":"torn' + "\n" + "null\n[]\n" + line(2) + '{"log":"unfinished')
    assert await read(path) == words(1, 2)


async def test_no_log_at_all(path):
    assert await read(path) == b""
    assert await read(path, LogQuery(follow=True)) == b""


async def test_following_sees_what_is_written_through_a_rotation(path):
    path.write_text(line(1))
    over, got = asyncio.Event(), []

    async def follow():
        async for batch in read_log(path, LogQuery(follow=True), tty=True, ended=over.is_set):
            got.append(batch)

    async def seen(expected):
        async with asyncio.timeout(5):
            while b"".join(got) != expected:
                await asyncio.sleep(0.005)

    task = asyncio.create_task(follow())
    await seen(words(1))
    with path.open("a") as file:
        file.write(line(2)[:10])
        file.flush()
        await asyncio.sleep(0.02)
        file.write(line(2)[10:])
    await seen(words(1, 2))
    with path.open("a") as file:
        file.write(line(3))
    path.rename(path.with_name("c-json.log.1"))
    path.write_text(line(4))
    await seen(words(1, 2, 3, 4))
    # Two rotations before the reader looks: nothing may be lost.
    path.with_name("c-json.log.1").rename(path.with_name("c-json.log.3"))
    path.rename(path.with_name("c-json.log.2"))
    path.with_name("c-json.log.1").write_text(line(5))
    path.write_text(line(6))
    over.set()
    (path.parent / "exit.json").write_text("{}")
    await asyncio.wait_for(task, 5)
    assert b"".join(got) == words(1, 2, 3, 4, 5, 6)


async def test_following_ends_with_everything_written_before_the_end(path):
    path.write_text(line(1))
    got = await read(path, LogQuery(follow=True), ended=lambda: True)
    assert got == words(1)


async def test_a_reader_that_leaves_closes_its_files(path):
    path.write_text("".join(line(number) for number in range(20_000)))
    stream = read_log(path, LogQuery(follow=True), tty=True, ended=lambda: False)
    assert await anext(stream)
    await stream.aclose()


def test_moments_round_trip():
    assert clock.nanoseconds(clock.written(BASE + 123)) == BASE + 123
    assert clock.nanoseconds("2023-11-14T22:13:20Z") == BASE
    assert clock.nanoseconds("2023-11-14T23:13:20.5+01:00") == BASE + 5 * 10**8
    assert clock.nanoseconds("0001-01-01T00:00:00Z") == 0
    assert clock.nanoseconds("yesterday") == 0
