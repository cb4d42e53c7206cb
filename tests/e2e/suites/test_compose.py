"""Docker Compose, both of its lines, unmodified: a stack of ours in all its verbs, and stacks that others wrote."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lacking
from tests.e2e.conftest import Platform
from tests.e2e.suites.conftest import SERVICE

STACK = """
services:
  db:
    image: standin
    volumes: ["data:/var/lib/db"]
    networks: {back: {aliases: [database]}}
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 0.3s, timeout: 2s, retries: 60}
    entrypoint: ["sh", "-c", "sleep 1; touch /tmp/ready; exec /bin/serve"]
  cache:
    image: standin
    networks: [back]
    tmpfs: [/scratch]
    mem_limit: 64m
  api:
    image: standin
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
    networks: [front, back]
    environment: {DATABASE: "database"}
  web:
    image: standin
    depends_on: [api]
    networks: [front]
    ports: ["127.0.0.1::80"]
    restart: unless-stopped
volumes: {data: {}}
networks:
  front: {}
  back: {internal: true}
"""
STACK_OF_V1 = STACK.replace("\nservices:", "version: '2.4'\nservices:", 1)

STACKS = ["apache-php", "flask", "flask-redis", "gitea-postgres", "nextcloud-postgres", "nextcloud-redis-mariadb",
          "nginx-flask-mongo", "nginx-golang", "nginx-golang-mysql", "nginx-golang-postgres", "nginx-nodejs-redis",
          "prometheus-grafana", "react-express-mongodb", "react-java-mysql", "wordpress-mysql"]  # fmt: skip


@dataclass
class Compose:
    command: Sequence[str]
    platform: Platform
    folder: Path
    project: str

    def __call__(self, *words: str, timeout: float = 90) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*self.command, "-p", self.project, *words], cwd=self.folder, capture_output=True,
                              text=True, timeout=timeout, check=False, env=self.platform.environment)

    def ok(self, *words: str, timeout: float = 90) -> str:
        ran = self(*words, timeout=timeout)
        assert ran.returncode == 0, f"{words}: {ran.stdout} {ran.stderr}\n{self.platform.log('node')[-2000:]}"
        return ran.stdout

    def containers(self) -> list[dict[str, Any]]:
        filters = json.dumps({"label": [f"com.docker.compose.project={self.project}"]})
        found: list[dict[str, Any]] = self.platform.client.json("GET", "/containers/json", {"all": 1, "filters": filters})
        return found

    def states(self) -> Mapping[str, str]:
        return {c["Labels"]["com.docker.compose.service"]: c["State"] for c in self.containers()}

    def nothing_is_left(self, *, volumes: bool = True) -> None:
        client, label = self.platform.client, json.dumps({"label": [f"com.docker.compose.project={self.project}"]})
        assert self.containers() == []
        assert client.json("GET", "/networks", {"filters": label}) == []
        if volumes:
            assert not client.json("GET", "/volumes", {"filters": label})["Volumes"]


def compose_commands(tool: Callable[[str], Path]) -> dict[str, list[str]]:
    return {"v2": [str(tool("docker-compose"))], "v1": ["/usr/bin/docker-compose"]}


@pytest.fixture(params=["v2", "v1"])
def compose(
    request: pytest.FixtureRequest, famous: Platform, tool: Callable[[str], Path], tmp_path: Path
) -> Iterator[Compose]:
    command = compose_commands(tool)[request.param]
    if not Path(command[0]).exists():
        lacking("needs docker-compose (Debian package)")
    (tmp_path / "compose.yaml").write_text(STACK)
    (tmp_path / "docker-compose.yml").write_text(STACK_OF_V1)
    if request.param == "v2":
        (tmp_path / "docker-compose.yml").unlink()
    made = Compose(command, famous, tmp_path, f"stack{request.param}")
    yield made
    made("down", "-v", "--remove-orphans", "-t", "1")
    famous.remove_containers()


def test_a_stack_from_up_to_down(compose: Compose, wait_for: Any) -> None:
    compose.ok("up", "-d", timeout=120)
    assert compose.states() == dict.fromkeys(("db", "cache", "api", "web"), "running")
    # Names are found on shared networks, by service and by alias, and nowhere else.
    assert compose.ok("exec", "-T", "web", "wget", "-qO-", "http://api:8000").strip()
    assert compose.ok("exec", "-T", "api", "wget", "-qO-", "http://database:5432").strip()
    assert compose("exec", "-T", "web", "wget", "-T", "3", "-qO-", "http://db:5432").returncode != 0
    port = compose.ok("port", "web", "80").strip()
    fetched = subprocess.run(["curl", "-fsS", f"http://{port}"], capture_output=True, text=True, timeout=20, check=True)
    assert fetched.stdout.strip()
    assert compose.ok("logs", "--no-color").count("ready for connections") == 4
    assert len(compose.ok("ps", "-q").split()) == 4


def test_health_conditions_order_the_start(compose: Compose) -> None:
    compose.ok("up", "-d", timeout=120)
    client = compose.platform.client
    at = {c["Labels"]["com.docker.compose.service"]: client.json("GET", f"/containers/{c['Id']}/json")
          for c in compose.containers()}  # fmt: skip
    assert at["db"]["State"]["Health"]["Status"] == "healthy"
    started = {name: datetime.fromisoformat(a["State"]["StartedAt"][:26] + "+00:00") for name, a in at.items()}
    # It needs a second to become healthy.
    assert started["db"] + timedelta(seconds=1) < started["api"] < started["web"]


def test_scale_stop_and_start_and_again(compose: Compose) -> None:
    compose.ok("up", "-d", "--scale", "api=3", timeout=120)
    assert sum(c["Labels"]["com.docker.compose.service"] == "api" for c in compose.containers()) == 3
    found = compose.ok("exec", "-T", "web", "nslookup", "api")
    assert len({line for line in found.splitlines() if line.startswith("Address") and ":53" not in line}) == 3
    compose.ok("up", "-d", "--scale", "api=1", timeout=120)
    assert sum(c["Labels"]["com.docker.compose.service"] == "api" for c in compose.containers()) == 1
    ids = {c["Id"] for c in compose.containers()}
    compose.ok("stop", "-t", "2")
    assert set(compose.states().values()) == {"exited"}
    compose.ok("start", timeout=120)
    assert set(compose.states().values()) == {"running"}
    compose.ok("restart", "-t", "2", "cache")
    assert {c["Id"] for c in compose.containers()} == ids
    # Nothing has changed, so nothing is made again; a change makes that service alone again.
    compose.ok("up", "-d", timeout=120)
    assert {c["Id"] for c in compose.containers()} == ids


def test_volumes_outlive_down_and_end_with_v(compose: Compose) -> None:
    compose.ok("up", "-d", timeout=120)
    compose.ok("exec", "-T", "db", "sh", "-c", "echo kept >/var/lib/db/file")
    compose.ok("down", "-t", "2")
    compose.nothing_is_left(volumes=False)
    compose.ok("up", "-d", timeout=120)
    assert compose.ok("exec", "-T", "db", "cat", "/var/lib/db/file") == "kept\n"
    compose.ok("down", "-v", "-t", "2")
    compose.nothing_is_left()


def test_a_run_of_one_service_and_its_exit_code(compose: Compose) -> None:
    ran = compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "cache", "-c", "echo once; exit 7")
    assert (ran.returncode, ran.stdout.strip()) == (7, "once"), ran.stderr


def prepared(stack: Path, copy: Path, config: Mapping[str, Any]) -> None:
    """The files that a stack mounts, which are not here: empty ones."""
    wanted = [mount["source"] for service in config["services"].values() for mount in service.get("volumes", ())
              if mount["type"] == "bind"]  # fmt: skip
    wanted += [item["file"] for kind in ("secrets", "configs") for item in config.get(kind, {}).values() if "file" in item]
    for path in map(Path, wanted):
        if path.is_relative_to(copy) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_text("made by hand\n")
            else:
                path.mkdir()


@pytest.mark.parametrize("stack", STACKS)
def test_stacks_of_others(
    famous: Platform, tool: Callable[[str], Path], shared: Path, tmp_path: Path, stack: str
) -> None:
    copy = tmp_path / "stack"
    shutil.copytree(shared / "compose" / "docker+awesome-compose" / stack, copy)
    compose = Compose(compose_commands(tool)["v2"], famous, copy, f"others-{stack}")
    config = json.loads(compose.ok("config", "--format", "json"))
    prepared(copy, copy, config)
    for name, service in config["services"].items():
        repository, _, tag = service.get("image", f"{compose.project}-{name}").rpartition(":")
        repository, tag = (repository, tag) if repository and "/" not in tag else (repository + tag, "latest")
        famous.client.status("POST", f"/images/{SERVICE}/tag", {"repo": repository, "tag": tag})
    try:
        compose.ok("up", "-d", "--no-build", "--pull", "never", timeout=150)
        deadline = time.monotonic() + 20
        while set(compose.states().values()) != {"running"} and time.monotonic() < deadline:
            time.sleep(0.2)
        assert compose.states() == dict.fromkeys(config["services"], "running")
        for service in config["services"]:
            # It runs before it has said so.
            while not (said := compose.ok("logs", "--no-color", service)) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert said
    finally:
        down = compose("down", "-v", "-t", "1")
    assert down.returncode == 0, down.stderr
    compose.nothing_is_left()
