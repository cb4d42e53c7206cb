"""What the monitor's logs write and the daemon reads: both formats, rotated and compressed, whole and in part."""

import asyncio
import gzip
import threading
from pathlib import Path

import pytest

from node.containers.logfiles import open_newer
from node.containers.logs import read_log
from node.containers.model import LogQuery
from node.runtime.locallog import LocalLog
from node.runtime.logs import JsonLog

LINES = b"".join(b"line %d of the log\n" % number for number in range(400))


def log_at(path: Path, max_size: int = 0, max_files: int = 1, *, compress: bool = False) -> JsonLog | LocalLog:
    kind = JsonLog if path.name.endswith("json.log") else LocalLog
    return kind(str(path), max_size, max_files, compress=compress)


@pytest.fixture(params=["c-json.log", "local.log"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


async def read(path: Path, query: LogQuery | None = None, *, tty: bool = True) -> bytes:
    return b"".join([batch async for batch in read_log(path, query or LogQuery(), tty=tty, ended=lambda: True)])


def fill(log: JsonLog | LocalLog, text: bytes = LINES, step: int = 700) -> None:
    """As a monitor does: what comes, and slices of the chore in between."""
    for start in range(0, len(text), step):
        log.write("stdout", text[start:start + step])
        if start % 3:
            log.work()


async def test_all_of_it_comes_back(path: Path) -> None:
    log = log_at(path)
    fill(log)
    log.write("stderr", b"no newline")
    log.close()
    assert await read(path) == LINES + b"no newline"
    assert await read(path, LogQuery(stdout=False), tty=False) == b"\2\0\0\0\0\0\0\nno newline"


@pytest.mark.parametrize("tail", [0, 1, 2, 37, 399, 400, 5000])
async def test_tail_counts_lines(path: Path, tail: int) -> None:
    log = log_at(path, 4000, 50, compress=True)
    fill(log)
    log.close()
    assert (await read(path, LogQuery(tail=tail))).splitlines() == LINES.splitlines()[400 - min(tail, 400):]


async def test_frames_are_lines(path: Path) -> None:
    log = log_at(path)
    log.write("stdout", b"one\ntwo\r\nthree\n")
    log.close()
    frames = ((4, b"one\n"), (5, b"two\r\n"), (6, b"three\n"))
    assert await read(path, tty=False) == b"".join(b"\1\0\0\0\0\0\0%c%s" % frame for frame in frames)


async def test_rotated_files_are_compressed_between_other_work(path: Path) -> None:
    log = log_at(path, 5000, 4, compress=True)
    fill(log, LINES * 5)
    while log.work():
        pass
    log.close()
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [path.name] + [f"{path.name}.{number}.gz" for number in (1, 2, 3)]
    with gzip.open(path.parent / names[1]) as packed:
        assert len(packed.read()) <= 5000
    got = await read(path)
    assert got.endswith(LINES[-100:])
    assert got in LINES * 5


async def test_a_reader_knows_a_file_that_was_compressed_under_it(path: Path) -> None:
    log = log_at(path, 0, 3)
    fill(log)
    log.close()
    (held,) = open_newer(path, None)
    log = log_at(path, 1, 3, compress=True)
    log.write("stdout", b"a newer file\n")
    while log.work():
        pass
    log.close()
    assert (path.parent / f"{path.name}.1.gz").exists()
    newer = open_newer(path, held)
    assert [file.identity for file in newer] == [path.stat().st_ino]
    for file in (held, *newer):
        file.close()


async def test_an_interrupted_compression_is_done_by_the_next_run(path: Path) -> None:
    log = log_at(path, 3000, 9, compress=True)
    fill(log, LINES[:3500], 500)
    log.close()
    assert (path.parent / f"{path.name}.1").exists()
    assert not list(path.parent.glob("*.part"))
    log = log_at(path, 3000, 9, compress=True)
    while log.work():
        pass
    log.close()
    assert (path.parent / f"{path.name}.1.gz").exists()
    assert await read(path) == LINES[:3500]


async def test_a_damaged_archive_ends_where_it_is_damaged(path: Path) -> None:
    log = log_at(path, 3000, 3, compress=True)
    fill(log, LINES[:5000], 500)
    while log.work():
        pass
    log.close()
    packed = path.parent / f"{path.name}.1.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    assert (await read(path)).endswith(LINES[4800:5000])


async def test_local_keeps_bytes_as_they_are_and_long_lines_whole(tmp_path: Path) -> None:
    path = tmp_path / "local.log"
    text = b"\xff\xfe\0" * 30_000 + b"\n"
    log = log_at(path)
    fill(log, text, 1000)
    log.close()
    assert await read(path) == text


async def test_local_goes_on_behind_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "local.log"
    log = log_at(path, 0, 2)
    log.write("stdout", b"before\n")
    log.write("stdout", b"torn\n")
    log.close()
    path.write_bytes(path.read_bytes()[:-3])
    assert await read(path) == b"before\n"
    log = log_at(path, 0, 2)
    log.write("stdout", b"after\n")
    log.close()
    assert await read(path) == b"before\nafter\n"


async def test_details_come_before_the_text(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    log = JsonLog(str(path), 0, 1, attrs='{"com.example": "a b", "app": "x\\",\\"stream\\":\\"stderr"}')
    log.write("stdout", b"hello\nagain\n")
    log.close()
    prefix = b"app=x%22%2C%22stream%22%3A%22stderr,com.example=a+b "
    assert await read(path, LogQuery(details=True)) == prefix + b"hello\n" + prefix + b"again\n"
    assert await read(path) == b"hello\nagain\n"


async def test_since_finds_its_place_in_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    with path.open("w") as file:
        for second in range(20_000):
            file.write(f'{{"log":"{second:0100d}\\n","stream":"stdout","time":"2026-01-01T{second // 3600:02d}:'
                       f'{second // 60 % 60:02d}:{second % 60:02d}.000000000Z"}}\n')
    since = 1_767_225_600 * 10**9
    for wanted in (0, 1, 777, 19_998):
        got = await read(path, LogQuery(since=since + wanted * 10**9))
        assert [int(line) for line in got.split()] == list(range(wanted, 20_000))


async def test_a_reader_meets_a_writer_that_rotates_all_the_time(path: Path) -> None:
    """Nothing is lost or repeated, whatever moment of a rotation the reader looks at."""
    wanted = b"".join(b"%d\n" % number for number in range(2_000))
    over = threading.Event()

    def write() -> None:
        log = log_at(path, 3000, 1000, compress=True)
        for start in range(0, len(wanted), 500):
            log.write("stdout", wanted[start:start + 500])
            for _ in range(start % 3):
                log.work()
        log.close()
        over.set()

    log_at(path).close()
    writer = asyncio.create_task(asyncio.to_thread(write))
    got = b"".join([batch async for batch in read_log(path, LogQuery(follow=True), tty=True, ended=over.is_set)])
    await writer
    assert got == wanted
