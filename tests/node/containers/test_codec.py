"""Everything the model can hold survives state.db."""

import json

import pytest

from node.containers.codec import decode, encode
from node.containers.model import (
    Container,
    ContainerState,
    CreateSpec,
    Device,
    Health,
    Healthcheck,
    HealthResult,
    LogSpec,
    MountPoint,
    NetworkSpec,
    Port,
    PublishedPort,
    Resources,
    RestartMode,
    RestartPolicy,
    Security,
    Status,
    Ulimit,
)
from node.containers.mountspec import MountSpec

SPEC = CreateSpec(
    "alpine",
    cmd=(),
    entrypoint=None,
    env=("A=ü\n",),
    labels={"a": "b"},
    exposed_ports=(Port(80), Port(53, "udp")),
    stop_timeout=-1,
    healthcheck=Healthcheck(("CMD", "x"), 1),
    mounts=(MountSpec.parse_bind("/a:/b:ro"),),
    resources=Resources(ulimits=(Ulimit("nofile", 1, 2),), devices=(Device("/dev/null", "/dev/n"),), memory=7),
    security=Security(masked_paths=(), cap_add=("ALL",)),
    network=NetworkSpec(bindings=(PublishedPort(Port(80), "127.0.0.1", 8080),)),
    log=LogSpec(max_size=5),
    restart=RestartPolicy(RestartMode.ON_FAILURE, 3),
    console_size=(24, 80),
)
CONTAINER = Container(
    "a" * 64,
    "n",
    "2026-01-01T00:00:00Z",
    "alpine",
    "sha256:x",
    SPEC,
    "sh",
    ("-c",),
    (MountPoint("bind", "/b", "/a", read_only=True),),
    ContainerState(Status.PAUSED, health=Health("healthy", 0, (HealthResult("a", "b", 1, "o"),))),
)


def test_round_trip():
    assert decode(Container, encode(CONTAINER)) == CONTAINER


def test_empty_and_none_are_told_apart():
    back = decode(Container, encode(CONTAINER)).spec
    assert back.cmd == ()
    assert back.entrypoint is None
    assert back.security.masked_paths == ()
    assert back.security.readonly_paths is None


def test_fields_of_another_seawall_are_tolerated():
    document = json.loads(encode(CONTAINER))
    document["from_the_future"] = 1
    del document["mounts"]
    assert decode(Container, json.dumps(document)).mounts == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"id":1}'])
def test_what_is_no_container_is_refused(text):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        decode(Container, text)
