"""Sockets of several workers, and the parent that keeps them alive: with real processes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.errors import InvalidArgument
from registry.workers import AddressUnusable, listen, resolve

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


def close(workers: list[list[socket.socket]]) -> None:
    for sockets in workers:
        for one in sockets:
            one.close()


def test_every_worker_has_a_socket_of_its_own_on_one_port() -> None:
    workers = listen("127.0.0.1", 0, 3, 60)
    try:
        assert len({one.getsockname() for sockets in workers for one in sockets}) == 1
        assert len({one.fileno() for sockets in workers for one in sockets}) == 3
    finally:
        close(workers)


def test_a_port_in_use_is_refused_even_by_ourselves() -> None:
    workers = listen("127.0.0.1", 0, 2, 60)
    try:
        port = workers[0][0].getsockname()[1]
        with pytest.raises(AddressUnusable, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port, 2, 60)
    finally:
        close(workers)
    close(listen("127.0.0.1", port, 2, 60))


def test_addresses_that_are_not_ours() -> None:
    with pytest.raises(AddressUnusable):
        listen("192.0.2.1", 5000, 1, 60)
    with pytest.raises(InvalidArgument):
        resolve("no such host", 5000)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([COMMAND, "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0",
                                "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ready(process: subprocess.Popen[str]) -> str:
    """The URL of the line that says so."""
    assert process.stdout
    line = process.stdout.readline()
    match = re.search(r"http://\S+", line)
    assert match, line
    return match[0]


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
        return answer.status == 200


def test_one_line_tells_when_it_serves(started) -> None:
    url = ready(started)
    assert answers(url)
    assert len(children(started.pid)) == 2


def test_a_dead_worker_is_replaced_and_nobody_notices(started, wait_for) -> None:
    url = ready(started)
    before = children(started.pid)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    # Its socket is held by the parent: what arrives meanwhile waits for the successor.
    assert all(answers(url) for _ in range(20))
    wait_for(lambda: len(children(started.pid) - {victim}) == 2)
    assert children(started.pid) != before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it(started, number) -> None:
    url = ready(started)
    workers = children(started.pid)
    started.send_signal(number)
    assert started.wait(10) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    with pytest.raises(OSError):
        answers(url)


def test_workers_do_not_outlive_a_killed_parent(started, wait_for) -> None:
    ready(started)
    workers = children(started.pid)
    started.kill()
    started.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


def supervise(body: str) -> subprocess.CompletedProcess[str]:
    """Runs a supervisor over two workers that do `body`."""
    program = ("import logging, os, time\nfrom registry.workers import COULD_NOT_START, Supervisor\n"
               "logging.basicConfig()\n"
               f"def run(index, parent, ready):\n    {body}\n"
               "raise SystemExit(Supervisor(2, run, lambda: print('ready', flush=True), list, 0.5).serve())")
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)


def test_a_worker_that_will_never_run_ends_everything() -> None:
    begun = time.monotonic()
    result = supervise("return COULD_NOT_START if index else (ready(), time.sleep(60))[0] or 0")
    assert (result.returncode, result.stdout) == (1, "")
    assert time.monotonic() - begun < 10


def test_a_worker_that_does_not_end_is_killed() -> None:
    result = supervise("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                       "ready(); index or os.kill(os.getppid(), signal.SIGTERM); time.sleep(60); return 0")
    assert result.returncode == 0


def test_a_worker_that_dies_at_once_is_started_again_after_a_pause(tmp_path) -> None:
    starts = tmp_path / "starts"
    result = supervise(f"import signal; open({str(starts)!r}, 'a').write(str(index)); ready(); "
                       f"n = len(open({str(starts)!r}).read()); n < 6 or os.kill(os.getppid(), signal.SIGTERM); "
                       "return 7")
    assert result.returncode == 0
    assert "status 7" in result.stderr
    assert 6 <= len(starts.read_text()) <= 8


def test_a_running_request_is_finished_first(started) -> None:
    url = ready(started)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.2)  # the head must have arrived: nothing outside shows when it has
        started.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert started.poll() is None
        client.sendall(b"}")
        assert b"400" in client.recv(4096).split(b"\r\n")[0]
    assert started.wait(10) == 0
