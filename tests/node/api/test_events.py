"""Which events a question is answered with, and in which form."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from node.api.types.events import event, matches
from node.api.version import ApiVersion
from node.events import Event, EventBus
from node.journal import Journal, open_journal
from tests.conftest import Until

WEB = "f" * 64
ATTRIBUTES = {"name": "web.1", "image": "host:5000/nginx:1.27", "tier": "front", "empty": ""}


def container(action: str = "start") -> Event:
    return Event("container", action, WEB, ATTRIBUTES, 10**9)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"container": ["web.1"]}, True),
        ({"container": ["web"]}, True),
        ({"container": ["other", "ffff"]}, True),
        ({"container": ["eb.1"]}, False),
        ({"image": ["host:5000/nginx"]}, True),
        ({"image": ["host:5000/nginx:1.27"]}, True),
        ({"image": ["host"]}, False),
        ({"image": ["nginx"]}, False),
        ({"container": ["web"], "image": ["other"]}, False),
        ({"label": ["tier"]}, True),
        ({"label": ["tier=front", "empty"]}, True),
        ({"label": ["tier=front", "tier=back"]}, False),
        ({"type": ["image", "container"]}, True),
        ({"type": ["network"]}, False),
        ({"scope": ["local"]}, True),
        ({"scope": ["swarm"]}, False),
        ({"network": ["web"]}, False),
        ({"daemon": ["x"]}, False),
        ({"event": ["die", "start"]}, True),
        ({"event": ["star"]}, False),
    ],
)
def test_filters(filters: dict[str, list[str]], expected: bool) -> None:
    assert matches(container(), filters) is expected


def test_details_of_an_action_may_be_left_out() -> None:
    probe = container("exec_start: sh -c true")
    assert matches(probe, {"event": ["exec_start"]})
    assert matches(probe, {"event": ["exec_start: sh -c true"]})
    assert not matches(probe, {"event": ["exec_create"]})
    assert matches(container("health_status: healthy"), {"event": ["health_status"]})
    assert not matches(container("health_status: healthy"), {"event": ["health_status: unhealthy"]})


def test_old_fields_by_version() -> None:
    old, new = (event(container(), ApiVersion(1, minor)) for minor in (51, 52))
    assert (old["status"], old["id"], old["from"]) == ("start", WEB, ATTRIBUTES["image"])
    assert not {"status", "id", "from"} & set(new)
    assert new["Actor"]["ID"] == WEB
    assert "status" not in event(Event("network", "create", "n"), ApiVersion(1, 24))


def seconds(events: Sequence[Event]) -> list[int]:
    return [item.time_ns // 10**9 for item in events]


async def test_a_journal_is_read_by_the_next_daemon(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    async with open_journal(path) as journal:
        bus = EventBus(journal.append)
        for second in range(1, 6):
            bus.publish(Event("volume", "create", f"v{second}", {"driver": "local"}, second * 10**9))
        assert seconds(await journal.read(2 * 10**9, 5 * 10**9)) == [2, 3, 4]
    with path.open("a") as file:
        file.write('[6000000000, "volume", "torn')
    async with open_journal(path) as journal:
        journal.append(Event("volume", "destroy", "v1", {}, 7 * 10**9))
        found = await journal.read(0, 10**18)
    assert found[0].attributes == {"driver": "local"}
    assert seconds(found)[:5] == [1, 2, 3, 4, 5]


async def test_a_journal_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.log", max_size=2000)
    for second in range(200):
        journal.append(Event("container", "die", WEB, {}, second * 10**9))
        await journal.flush()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4000
    found = seconds(await journal.read(0, 10**18))
    assert found == list(range(found[0], 200))


async def test_it_is_written_without_being_asked(tmp_path: Path, until: Until) -> None:
    path = tmp_path / "events.log"
    async with open_journal(path) as journal:
        journal.append(container())
        await until(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
        assert json.loads(path.read_bytes())[2] == "start"
