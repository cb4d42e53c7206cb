"""A node that has images under famous names, for suites and stacks that other people wrote."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Platform, tear_down
from tests.e2e.suites import handmade

PORTS = (80, 443, 3000, 3306, 5000, 5432, 6379, 8000, 8080, 9000, 9090)
SERVICE = "standin:latest"


@pytest.fixture(scope="session")
def famous(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`platform`'s registry behind a second node, whose docker.io it is."""
    folder = Path(tempfile.mkdtemp(prefix="seawall-suites-"))
    images = tmp_path_factory.mktemp("images")
    made = Platform(folder, platform.port)
    (folder / "docker").mkdir()
    try:
        handmade.python(images / "python")
        handmade.registry(images / "registry")
        handmade.hello(images / "hello")
        handmade.service(images / "service", PORTS)
        named = {"python": ("python:3.13-alpine", "python:3.14-alpine", "python:latest"), "registry": ("registry:2",),
                 "hello": ("hello-world:latest",), "service": (SERVICE, "nginx:latest", "nginx:alpine")}  # fmt: skip
        for image, names in named.items():
            handmade.push(images / image, made.registry, [f"library/{name}" for name in names])
        made.start_node("--registry-mirror", f"docker.io=http://{made.registry}")
        for name in ("alpine:3.10", "busybox:latest"):
            made.pull(name)
            made.client.status("POST", f"/images/{made.registry}/{name}/tag", dict(zip(("repo", "tag"), name.split(":"), strict=True)))
        for names in named.values():
            for name in names:
                repository, _, tag = name.partition(":")
                lines = made.client.lines("POST", "/images/create", {"fromImage": repository, "tag": tag})
                assert not any("error" in line for line in lines), name
        yield made
    finally:
        tear_down(made)
        shutil.rmtree(folder, ignore_errors=True)
