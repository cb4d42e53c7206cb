"""A running registry as its operator meets it: several workers, signals, numbers. With real processes."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        line = process.stdout.readline()
        self.port = int(re.search(r":(\d+) ", line)[1])

    def get(self, path: str, *, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
        """On a connection of its own, so that any worker may answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def numbers(self) -> dict[tuple[str, ...], float]:
        return {(sample.name.removeprefix("seawall_"), *sample.labels.values()): sample.value
                for family in parse(self.get("/metrics")[1].decode()) for sample in family.samples}


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def run(*options: str, **environment: str) -> Running:
        process = subprocess.Popen(
            [COMMAND, "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **environment})
        processes.append(process)
        return Running(process)

    yield run
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_whichever_worker_is_asked_knows_the_sum(start, wait_for) -> None:
    running = start("--workers", "3")
    for _ in range(60):
        assert running.get("/v2/")[0] == 200
    wait_for(lambda: running.numbers()["http_requests_total", "base", "GET", "200"] == 60)
    for _ in range(20):
        assert running.numbers()["http_requests_total", "base", "GET", "200"] == 60
    found = running.numbers()
    assert {key[1] for key in found if key[0] == "worker_resident_bytes"} == {"0", "1", "2"}
    assert {key[0] for key in found if key[0] == "build_info"}


def test_counts_survive_a_worker(start, wait_for) -> None:
    running = start("--workers", "2")
    for _ in range(30):
        running.get("/v2/")
    wait_for(lambda: running.numbers()["http_requests_total", "base", "GET", "200"] == 30)
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    wait_for(lambda: len(set(Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
                             .read_text().split()) - set(children)) == 2)
    assert running.numbers()["http_requests_total", "base", "GET", "200"] == 30
    running.get("/v2/")
    wait_for(lambda: running.numbers()["http_requests_total", "base", "GET", "200"] == 31)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_drains_before_it_stops(start, wait_for, workers) -> None:
    """Unready first, all answered; then it accepts no more, and what runs finishes."""
    running = start("--workers", workers, SEAWALL_REGISTRY_LIMITS_DRAIN_TIME="3")
    data = os.urandom(100_000)
    _, _, headers = running.get("/v2/team/app/blobs/uploads/", method="POST")
    assert running.get("/readyz")[0] == 200
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as uploading:
        uploading.sendall(f"PATCH {headers['location']} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                          + data[:50_000])
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: running.get("/readyz")[0] == 503, within=2)
        assert running.get("/v2/")[0] == 200
        assert json.loads(running.get("/livez")[1]) == {"status": "ok"}

        def refused() -> bool:
            """Impatient: what waits in the queue of a socket that is about to close is answered by nobody."""
            try:
                with socket.create_connection(("127.0.0.1", running.port), timeout=0.5) as asking:
                    asking.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    return not asking.recv(100)
            except OSError:
                return True

        wait_for(refused, within=10)
        assert time.monotonic() - began > 2.5
        uploading.sendall(data[50_000:])
        assert uploading.recv(1000).startswith(b"HTTP/1.1 202 ")
    assert running.process.wait(20) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_the_drain(start, wait_for, workers) -> None:
    running = start("--workers", workers, SEAWALL_REGISTRY_LIMITS_DRAIN_TIME="60")
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.get("/readyz")[0] == 503)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_is_no_reason_to_end(start, workers) -> None:
    running = start("--workers", workers)
    for _ in range(5):
        running.process.send_signal(signal.SIGHUP)
    for _ in range(10):
        assert running.get("/v2/")[0] == 200
    running.process.terminate()
    assert running.process.wait(20) == 0
    assert "starting it again" not in running.process.stderr.read()


def test_logs_are_json_when_asked_for(start, wait_for) -> None:
    running = start("--workers", "1", SEAWALL_REGISTRY_LOG_FORMAT="json", SEAWALL_REGISTRY_LOG_ACCESS="true")
    assert running.get("/v2/team/app/manifests/v1%0aforged%22")[0] == 404
    running.process.terminate()
    out, err = running.process.communicate(timeout=20)
    (line,) = [json.loads(line) for line in out.splitlines() if "manifests" in line]
    assert line["status"] == 404
    assert line["endpoint"] == "manifest"
    assert line["actor"] == ""
    assert line["request"]
    for line in err.splitlines():
        json.loads(line)
