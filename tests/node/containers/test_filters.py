"""`docker ps --filter`."""

import time
from dataclasses import replace

import pytest

from node.containers import logdrivers
from node.containers.filters import Filters, InvalidFilter
from node.containers.model import (
    Container,
    ContainerState,
    CreateSpec,
    Health,
    LogSpec,
    MountPoint,
    NetworkSpec,
    Place,
    Port,
    PublishedPort,
    Status,
)
from node.network.model import Endpoint
from ocispec.errors import InvalidArgument

CONTAINER = Container(
    "abc" + "0" * 61,
    "web_server",
    "2026-01-01T00:00:00Z",
    "alpine",
    "sha256:feed" + "0" * 60,
    CreateSpec("alpine", labels={"tier": "front", "empty": ""}, exposed_ports=(Port(80),), network=NetworkSpec()),
    "sh",
    (),
    (MountPoint("volume", "/data", "/vols/v1", "v1"),),
    ContainerState(Status.EXITED, exit_code=3, health=Health("unhealthy")),
    Place((Endpoint(network_name="bridge", network_id="netid"),), ports=(PublishedPort(Port(80), "0.0.0.0", 8080),)),
)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"id": ["abc"]},
        {"name": ["web"]},
        {"name": ["^/web_"]},
        {"name": ["nope", "server$"]},
        {"label": ["tier"]},
        {"label": ["tier=front", "empty="]},
        {"status": ["running", "exited"]},
        {"exited": ["3"]},
        {"ancestor": ["alpine:latest"]},
        {"ancestor": ["sha256:feed" + "0" * 60]},
        {"ancestor": ["feed"]},
        {"network": ["bridge"]},
        {"network": ["netid"]},
        {"volume": ["/data"]},
        {"volume": ["v1"]},
        {"health": ["unhealthy"]},
        {"publish": ["80"]},
        {"publish": ["70-90/tcp"]},
        {"expose": ["80/tcp"]},
        {"is-task": ["false"]},
        {"status": ["exited"], "name": ["web"]},
    ],
)
def test_matches(raw):
    assert Filters.parse(raw).matches(CONTAINER)


@pytest.mark.parametrize(
    "raw",
    [
        {"id": ["bc"]},
        {"name": ["db"]},
        {"name": ["^server"]},
        {"label": ["tier=front", "none"]},
        {"label": ["empty=x"]},
        {"status": ["running"]},
        {"exited": ["0"]},
        {"ancestor": ["busybox"]},
        {"network": ["host", ""]},
        {"volume": ["v2"]},
        {"health": ["none"]},
        {"publish": ["81"]},
        {"publish": ["80/udp"]},
        {"is-task": ["true"]},
        {"status": ["exited"], "name": ["db"]},
    ],
)
def test_does_not_match(raw):
    assert not Filters.parse(raw).matches(CONTAINER)


@pytest.mark.parametrize(
    "raw",
    [
        {"colour": ["red"]},
        {"status": ["sleeping"]},
        {"health": ["fine"]},
        {"exited": ["one"]},
        {"publish": ["http"]},
        {"is-task": ["maybe"]},
    ],
)
def test_refuses(raw):
    with pytest.raises(InvalidFilter, match=r"invalid filter|Unrecognised filter value for health: fine"):
        Filters.parse(raw)


def test_an_exit_code_is_of_a_container_that_exited():
    running = replace(CONTAINER, state=ContainerState(Status.RUNNING))
    assert not Filters.parse({"exited": ["0"]}).matches(running)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|a)*b", "(" * 200, "[", "(?:a*)*c", "a*a*a*b", "a?a?a?aaa", "^a*a*a*$", "a{1,9}a{1,9}b", "x" * 1000],
)
def test_patterns_whose_cost_has_no_bound_are_refused(pattern):
    with pytest.raises(InvalidFilter, match="invalid filter 'name="):
        Filters.parse({"name": [pattern]})


@pytest.mark.parametrize("pattern", ["a*!x", "^a*a*x", "a{200}x", ".*x", "^.*.*x$"])
def test_the_worst_that_is_taken_is_quick(pattern):
    long = replace(CONTAINER, name="a" * 254 + "!")
    began = time.monotonic()
    assert not Filters.parse({"name": [pattern]}).matches(long)
    assert time.monotonic() - began < 0.5


def test_filters_that_look_at_stopped_ones():
    assert Filters.parse({"status": ["exited"]}).wants_all
    assert not Filters.parse({"name": ["x"], "exited": ["0"]}).wants_all


def test_isolation_is_the_default_one():
    assert Filters.parse({"isolation": ["default"]}).matches(CONTAINER)
    assert not Filters.parse({"isolation": ["hyperv"]}).matches(CONTAINER)


def test_an_ancestor_that_names_an_image_is_that_image():
    moved = replace(CONTAINER, image="web:1", image_id="sha256:" + "a" * 64)
    asked = Filters.parse({"ancestor": ["web:1"]})
    assert asked.matches(moved)
    assert not asked.with_images({"web:1": "sha256:" + "b" * 64}).matches(moved)
    assert asked.with_images({"web:1": moved.image_id}).matches(moved)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", r"\\*\\*\\*\\*\\*\\*x", ".*.*.*x", "(?:a{1,9}){1,9}$", "("])
def test_patterns_that_take_time_are_not_taken(pattern: str) -> None:
    with pytest.raises(InvalidFilter):
        Filters.parse({"name": [pattern]})
    for option in ("labels-regex", "env-regex"):
        with pytest.raises(InvalidArgument, match=option):
            logdrivers.check(LogSpec("json-file", {option: pattern}))


def test_patterns_of_log_options_match_names() -> None:
    logdrivers.check(LogSpec("json-file", {"labels-regex": "^(production_status|geo)", "env-regex": "^os"}))
