"""Attached clients, terminals, stdin and its end, the log: nothing is lost and nobody blocks for ever."""

import asyncio
import gc
import hashlib
import os
import socket
from pathlib import Path

import pytest

from node.containers.monitor import Monitor, MonitorGone
from tests.conftest import Until
from tests.node.runtime.conftest import Box, Boxes, Stream
from tests.node.runtime.test_lifecycle import monitor_pid

pytestmark = pytest.mark.root


async def attach(monitor: Monitor, *, stdin: bool = False, exec_id: str | None = None) -> Stream:
    return Stream(await monitor.attach(stdin=stdin, stdout=True, stderr=True, exec_id=exec_id))


async def start(box: Box, *, stdin: bool = False) -> tuple[Monitor, Stream]:
    monitor = await box.create()
    stream = await attach(monitor, stdin=stdin)
    await monitor.start()
    return monitor, stream


async def test_who_attaches_before_the_start_misses_nothing(boxes: Boxes) -> None:
    monitor, stream = await start(boxes("sh", "-c", "echo out; echo err >&2"))
    assert await stream.frames() == {1: b"out\n", 2: b"err\n"}
    assert (await monitor.wait()).code == 0


async def test_streams_are_chosen(boxes: Boxes) -> None:
    monitor = await boxes("sh", "-c", "echo out; echo err >&2").create()
    only = Stream(await monitor.attach(stdin=False, stdout=False, stderr=True))
    await monitor.start()
    assert await only.frames() == {1: b"", 2: b"err\n"}


async def test_stdin_and_its_end(boxes: Boxes) -> None:
    box = boxes("cat")
    box.open_stdin = box.stdin_once = True
    monitor, stream = await start(box, stdin=True)
    await stream.send(b"one\n")
    await stream.send(b"two\n")
    stream.end_input()
    assert await stream.frames() == {1: b"one\ntwo\n", 2: b""}
    assert (await monitor.wait()).code == 0


async def test_much_stdin_of_a_client_that_leaves_at_once(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "sleep 0.2; wc -c")
    box.open_stdin = box.stdin_once = True
    monitor = await box.create()
    stream = Stream(await monitor.attach(stdin=True, stdout=False, stderr=False))
    await monitor.start()
    await stream.send(bytes(3_000_000))
    stream.channel.close()
    assert (await monitor.wait()).code == 0
    assert box.output().strip() == "3000000"


async def test_stdin_stays_open_for_the_next_client(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "read a; read b; echo $a $b")
    box.open_stdin = True
    monitor, first = await start(box, stdin=True)
    await first.send(b"one\n")
    first.end_input()
    first.channel.close()
    second = await attach(monitor, stdin=True)
    await second.send(b"two\n")
    assert await second.frames() == {1: b"one two\n", 2: b""}


async def test_without_stdin_the_process_reads_the_containers_null_device(boxes: Boxes) -> None:
    box = boxes("sh", "-c",
                "cat; stat -L -c '%t:%T %n' /proc/self/fd/0; chmod 600 /proc/self/fd/0; stat -c %a /dev/null")
    _, output = await box.run()
    assert output == "1:3 /proc/self/fd/0\n600\n"
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666, "the host's is another"


async def test_a_second_client_gets_what_comes_from_then_on(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "echo early; read x; echo late")
    box.open_stdin = True
    monitor, first = await start(box, stdin=True)
    await first.until(b"early")
    second, third = await attach(monitor, stdin=True), await attach(monitor)
    await second.send(b"\n")
    assert (await first.frames())[1] == b"early\nlate\n"
    assert (await second.frames())[1] == (await third.frames())[1] == b"late\n"


async def test_a_hundred_megabytes_arrive_whole(boxes: Boxes) -> None:
    """Through the log and to a client that is sometimes slow."""
    size = 100 << 20
    box = boxes("sh", "-c", "awk 'BEGIN { s = \"0123456789abcdef\"; while (length(s) < 1000) s = s s; "
                            f"while (n < {size}) {{ print s n; n += length(s n) + 1 }} }}'")
    monitor, stream = await start(box)
    assert await stream.read()
    await asyncio.sleep(0.2)
    got = (await stream.frames())[1]
    assert (await monitor.wait()).code == 0
    assert len(got) >= size
    logged = hashlib.sha256()
    with box.log_path.open("rb") as file:
        for line in file:
            logged.update(line[len(b'{"log":"'):line.rindex(b'","stream"')].replace(b"\\n", b"\n"))
    assert logged.digest() == hashlib.sha256(got).digest()
    box.log_path.unlink()
    gc.collect()


async def test_a_client_that_does_not_read_stops_the_process_and_nothing_is_lost(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "seq 1 400000; echo end >&2")
    monitor, lazy = await start(box)
    await asyncio.sleep(0.5)
    assert box.output("stderr") == "", "the process waits for its reader"
    numbers = (await lazy.frames())[1].split()
    assert (len(numbers), numbers[-1]) == (400000, b"400000")
    assert (await monitor.wait()).code == 0


async def test_a_client_that_left_is_let_go(boxes: Boxes, until: Until) -> None:
    """Also of a process that is silent: its descriptors must not pile up."""
    monitor, stream = await start(boxes("sleep", "100"))
    stream.channel.close()
    fds = Path(f"/proc/{monitor_pid(monitor.pid)}/fd")
    before = len(list(fds.iterdir()))
    for _ in range(10):
        other = await attach(monitor)
        other.end_input()
        other.channel.close()
    await until(lambda: len(list(fds.iterdir())) <= before)


async def test_attaching_after_the_end_says_so(boxes: Boxes) -> None:
    monitor = await boxes("true").create()
    await monitor.start()
    await monitor.wait()
    with pytest.raises(MonitorGone):
        await attach(monitor)


# -- terminals


async def test_a_terminal(boxes: Boxes) -> None:
    box = boxes("sh", "-c",
                "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo yes; read line; echo got $line",
                terminal=True, consoleSize={"height": 33, "width": 77})
    box.open_stdin = True
    monitor, stream = await start(box, stdin=True)
    text = await stream.until(b"yes")
    assert b"/dev/pts/0" in text or b"/dev/console" in text
    assert b"33 77" in text
    await stream.send(b"hello\n")
    assert b"got hello\r\n" in await stream.all()
    assert (await monitor.wait()).code == 0
    assert "got hello\r\n" in box.output()


async def test_a_terminal_is_resized(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.02; done", terminal=True)
    monitor, stream = await start(box)
    await stream.until(b"ready")
    await monitor.resize(40, 120)
    assert b"40 120" in await stream.all()


async def test_control_c_interrupts_the_terminals_process(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "trap 'exit 42' INT; echo ready; while :; do sleep 0.02; done", terminal=True)
    box.open_stdin = True
    monitor, stream = await start(box, stdin=True)
    await stream.until(b"ready")
    await stream.send(b"\x03")
    assert (await monitor.wait()).code == 42
    stream.channel.close()


async def test_the_terminal_is_also_the_console_and_the_users(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "stat -c '%u %F' $(tty); stat -c '%t' /dev/console; echo to console > /dev/console",
                terminal=True, user={"uid": 1000, "gid": 1000})
    _, stream = await start(box)
    text = await stream.all()
    assert b"1000 character special file" in text
    assert b"to console" in text


async def test_much_output_of_a_terminal(boxes: Boxes) -> None:
    _, stream = await start(boxes("seq", "1", "200000", terminal=True))
    lines = (await stream.all()).split(b"\r\n")
    assert (len(lines), lines[-2]) == (200001, b"200000")


# -- the control socket


async def test_nobody_else_may_speak_to_a_monitor(boxes: Boxes) -> None:
    box = boxes("sleep", "100")
    monitor = await box.create()
    await monitor.start()
    assert os.stat(box.folder / "monitor.sock").st_mode & 0o777 == 0o600
    os.chmod(box.folder / "monitor.sock", 0o777)
    for folder in (box.folder, *box.folder.parents):
        if str(folder).startswith(("/tmp/", str(box.folder.parents[1]))):
            os.chmod(folder, 0o755)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.setresuid(1000, 1000, 1000)
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(f"/proc/self/cwd/{os.path.relpath(box.folder / 'monitor.sock')}")
        channel.settimeout(5)
        os.write(writing, b"closed" if channel.recv(1) == b"" else b"open")
        os._exit(0)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 10) == b"closed"
    os.close(reading)
    os.waitpid(child, 0)
    assert monitor.pid


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x02[]",
                                  b'\x00\x00\x00\x0f{"op":"signal"}', b'\x00\x00\x00\x0b{"op":"no"}'])
async def test_nonsense_does_not_end_a_monitor(boxes: Boxes, sent: bytes) -> None:
    box = boxes("sleep", "100")
    monitor = await box.create()
    await monitor.start()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(f"/proc/self/cwd/{os.path.relpath(box.folder / 'monitor.sock')}")
        channel.send(sent)
        channel.shutdown(socket.SHUT_WR)
        channel.settimeout(5)
        await asyncio.to_thread(channel.recv, 1000)
    other = await Monitor.connect(box.folder)
    assert other.pid == monitor.pid
    await other.close()
