"""From the spool to a log service: every line once and in order, through failures, rotations and new daemons."""

import asyncio
import os
import re
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.containers.delivery.courier import Courier
from node.containers.delivery.journald import JournalSender, field_name
from node.containers.delivery.syslog import SyslogSender, SyslogTarget
from node.containers.logformats import Entry
from node.runtime.locallog import LocalLog
from ocispec.errors import InvalidArgument
from tests.conftest import Until

MOMENT = 1_700_000_000_123_456_789


class Heard:
    """A log service that fails when it is told to."""

    def __init__(self) -> None:
        self.text = b""
        self.down = False

    def send(self, entries: Sequence[Entry]) -> None:
        if self.down:
            raise ConnectionRefusedError("down")
        self.text += b"".join(entry.text for entry in entries)

    def close(self) -> None:
        pass


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


async def test_all_arrives_through_rotations(tmp_path: Path, threads: ThreadPoolExecutor, until: Until) -> None:
    path, heard, over = tmp_path / "local.log", Heard(), asyncio.Event()
    log = LocalLog(str(path), 2000, 100, compress=True)
    task = asyncio.create_task(Courier(path, heard, over.is_set, threads).run())
    wanted = b""
    for number in range(300):
        line = b"line %d\n" % number
        wanted += line
        log.write("stdout", line)
        log.work()
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    await until(lambda: heard.text == wanted)
    log.write("stderr", b"the last word")
    log.close()
    over.set()
    await asyncio.wait_for(task, 5)
    assert heard.text == wanted + b"the last word"


async def test_what_a_service_missed_comes_when_it_is_back(
    tmp_path: Path, threads: ThreadPoolExecutor, until: Until
) -> None:
    path, heard, over = tmp_path / "local.log", Heard(), asyncio.Event()
    heard.down = True
    log = LocalLog(str(path), 0, 1)
    log.write("stdout", b"early\n")
    task = asyncio.create_task(Courier(path, heard, over.is_set, threads).run())
    await asyncio.sleep(0.05)
    log.write("stdout", b"late\n")
    heard.down = False
    await until(lambda: heard.text == b"early\nlate\n")
    log.close()
    over.set()
    await asyncio.wait_for(task, 5)


async def test_a_new_daemon_goes_on_where_it_was(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    path = tmp_path / "local.log"
    for text in (b"first\n", b"second\n", b"third\n"):
        log = LocalLog(str(path), 20, 9)
        log.write("stdout", text)
        log.close()
        heard = Heard()
        await asyncio.wait_for(Courier(path, heard, lambda: True, threads).run(), 5)
        assert heard.text == text


def entry(text: bytes, stream: int = 1) -> Entry:
    return Entry(text, stream, MOMENT)


def local_stamp() -> str:
    return r"\w{3} [ \d]\d \d\d:\d\d:\d\d"


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rf"<30>{local_stamp()} web\[\d+\]: hello"),
        ("rfc3164", rf"<30>{local_stamp()} \S+ web\[\d+\]: hello"),
        ("rfc5424", r"<30>1 2023-11-14T22:13:20Z \S+ web \d+ web - hello"),
        ("rfc5424micro", r"<30>1 2023-11-14T22:13:20\.123456Z \S+ web \d+ web - hello"),
    ],
)
def test_syslog_over_udp(form: str, pattern: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        options = {"syslog-address": f"udp://127.0.0.1:{server.getsockname()[1]}", "syslog-format": form}
        sender = SyslogSender(SyslogTarget.parse(options), "web")
        sender.send([entry(b"hello\n\n"), entry(b"oh\n", 2)])
        assert re.fullmatch(pattern, server.recv(4096).decode())
        assert server.recv(4096).startswith(b"<27>")
        sender.close()


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_syslog_over_streams_and_reconnection(tmp_path: Path, scheme: str) -> None:
    family = socket.AF_UNIX if scheme == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "syslog") if scheme == "unix" else ("127.0.0.1", 0))
        server.listen()
        server.settimeout(5)
        where = tmp_path / "syslog" if scheme == "unix" else f"127.0.0.1:{server.getsockname()[1]}"
        target = SyslogTarget.parse({"syslog-address": f"{scheme}://{where}", "syslog-facility": "local0"})
        sender = SyslogSender(target, "web")
        sender.send([entry(b"one\ntwo\n")])
        first, _ = server.accept()
        with first:
            assert re.fullmatch(rb"<134>.*: one\n<134>.*: two\n", first.recv(4096))
        with pytest.raises(OSError):
            for _ in range(50):
                sender.send([entry(b"x" * 100_000 + b"\n")])
        sender.send([entry(b"three\n")])
        second, _ = server.accept()
        with second:
            assert second.recv(4096).endswith(b": three\n")
        sender.close()


@pytest.mark.parametrize(
    "options",
    [
        {"syslog-address": "http://a"}, {"syslog-address": "udp://"}, {"syslog-address": "udp://a:x"},
        {"syslog-address": "unix://"}, {"syslog-facility": "nonsense"}, {"syslog-format": "rfc1"},
    ],
)  # fmt: skip
def test_wrong_syslog_options(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="syslog: "):
        SyslogTarget.parse(options)


def test_journald_gets_fields(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)
        sender = JournalSender(str(path), {"CONTAINER_NAME": "web", "ODD": "two\nlines"})
        sender.send([entry(b"hello\n", 2)])
        data = server.recv(65536)
        assert b"PRIORITY=3\n" in data
        assert b"CONTAINER_NAME=web\n" in data
        assert b"ODD\n\x09\0\0\0\0\0\0\0two\nlines\n" in data
        assert data.endswith(b"MESSAGE=hello\n")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        large = b"x" * 1_000_000
        sender.send([entry(large + b"\n")])
        _, ancillary, _, _ = server.recvmsg(4096, 64)
        fd = int.from_bytes(ancillary[0][2][:4], "little")
        try:
            assert os.pread(fd, 2_000_000, 0).endswith(b"MESSAGE=" + large + b"\n")
        finally:
            os.close(fd)
        sender.close()


def test_names_of_fields() -> None:
    assert field_name("com.example-app") == "COM_EXAMPLE_APP"
    assert field_name("_hidden") == "HIDDEN"
