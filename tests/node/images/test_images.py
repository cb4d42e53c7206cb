"""The images of a node on real stores, pulled from registries in this process."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.events import EventBus
from node.images.errors import ImageInUse, ImageNotFound, OldManifest, PlatformMissing, PullFailed
from node.images.keeping import Keeper, Policy
from node.images.mirrors import InvalidMirror, Mirror, RegistryRule, joined, parse_mirror_flag, read_rules
from node.images.mirrors import Rules as Registries
from node.images.news import ImageNews
from node.images.opening import open_images
from node.images.shared import SharedLayers
from node.images.store import Images, ImageSettings
from node.snapshots.choose import open_snapshotter
from node.snapshots.store import Snapshotter
from node.snapshots.trees import disk_usage
from node.state.database import open_state
from node.state.images import ImageUseRows
from ocispec import mediatype
from ocispec.descriptor import Platform
from ocispec.reference import Reference
from storage.blobs.disk import DiskBlobs
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.metadata.engine import open_database
from storage.remote.transport import RemoteSettings
from storage.repository.store import ContentStore
from tests.node.images.conftest import tar
from tests.node.images.registry import FakeRegistry, serving

pytestmark = pytest.mark.root

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
LOWER = tar("bin/", ("bin/sh", {"data": b"#" * 5000}), "etc/")
UPPER = tar("etc/", ("etc/app", {"data": b"x" * 300}))
OTHER = tar("etc/", ("etc/other", {"data": b"y" * 700}))


@dataclass
class Room:
    home: Path
    images: Images
    snapshots: Snapshotter
    uses: ImageUseRows
    in_use: dict[str, list[str]] = field(default_factory=dict)

    async def pull(self, registry: FakeRegistry, name: str, platform: Platform | None = None) -> str:
        image = await self.images.pull(Reference.parse(f"{registry.host}/{name}"), platform=platform)
        return str(image.id)

    def on_disk(self) -> int:
        return disk_usage(self.home / "content") + disk_usage(self.home / "snapshots")


@contextlib.asynccontextmanager
async def opened(home: Path, registries: Registries | None = None, kind: str = "overlay",
                 shared: SharedLayers | None = None) -> AsyncIterator[Room]:
    home.mkdir(exist_ok=True)
    blobs = DiskBlobs(home / "content")
    await blobs.prepare()
    async with (
        open_database(f"sqlite+aiosqlite:///{home}/content.db") as database,
        open_state(home / "state.db") as state,
    ):
        snapshots = await open_snapshotter(home / "snapshots", kind)
        remote = RemoteSettings(attempts=2, first_pause=0.01, longest_pause=0.02)
        settings = ImageSettings(remote=remote, registries=registries or Registries(), platform=AMD)
        async with open_images(ContentStore(database, blobs), blobs, Leases(database),
                               Collector(database, blobs, keep_untagged=True), snapshots, state, settings,
                               shared) as images:
            yield Room(home, images, snapshots, ImageUseRows(state))


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with opened(tmp_path / "home") as made:
        yield made


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as made:
        yield made


async def test_platforms_live_side_by_side(room: Room, registry: FakeRegistry) -> None:
    amd, arm = (registry.manifest("app", LOWER, top, architecture=name)
                for top, name in ((UPPER, "amd64"), (OTHER, "arm64")))
    registry.index("app", "1", amd64=amd, arm64=arm)
    name = f"{registry.host}/app:1"
    ours = await room.pull(registry, "app:1")
    parts = await room.images.parts(name)
    assert [(part.descriptor.digest, part.available) for part in parts] == [(amd, True), (arm, False)]
    with pytest.raises(PlatformMissing):
        await room.images.get(name, ARM)
    theirs = await room.pull(registry, "app:1", ARM)
    assert ours != theirs
    assert str((await room.images.get(name)).id) == ours
    assert str((await room.images.get(name, ARM)).id) == theirs
    assert str((await room.images.get(theirs)).id) == theirs
    assert len(await room.images.list()) == 1
    assert all(part.available for part in await room.images.parts(name))
    # Nothing of the other platform is collected with somebody else's leftovers.
    assert (await room.images.prune(lambda _: False, {})).freed == 0
    assert all(room.snapshots.has(chain_id) for chain_id in (await room.images.get(theirs)).chain)
    with pytest.raises(ImageInUse):
        await room.images.remove(name, in_use={theirs: ["c" * 64]})


async def test_one_platform_is_removed(room: Room, registry: FakeRegistry) -> None:
    amd, arm = (registry.manifest("app", LOWER, top, architecture=name)
                for top, name in ((UPPER, "amd64"), (OTHER, "arm64")))
    registry.index("app", "1", amd64=amd, arm64=arm)
    name = f"{registry.host}/app:1"
    await room.pull(registry, "app:1")
    theirs = await room.pull(registry, "app:1", ARM)
    chain = (await room.images.get(theirs)).chain
    with pytest.raises(ImageInUse):
        await room.images.remove_platforms(name, [ARM], {theirs: ["c" * 64]})
    removed = await room.images.remove_platforms(name, [ARM], {})
    assert [one.text for one in removed] == [str(arm), str(chain[-1])]
    assert room.snapshots.has(chain[0])
    with pytest.raises(PlatformMissing):
        await room.images.get(name, ARM)
    with pytest.raises(ImageInUse, match="no other platform"):
        await room.images.remove_platforms(name, [AMD], {})


@pytest.mark.parametrize("kind", ["overlay", "vfs"])
async def test_usage_adds_up(tmp_path: Path, registry: FakeRegistry, kind: str) -> None:
    registry.image("a", "1", LOWER, UPPER)
    registry.image("b", "1", LOWER, OTHER)
    async with opened(tmp_path / "home", kind=kind) as room:
        await room.pull(registry, "a:1")
        second = await room.images.get(await room.pull(registry, "b:1"))
        usage = await room.images.usage()
        assert usage.total() == room.on_disk()
        assert len(usage.layers) == 3
        # A layer that only a container stands on any more is still on the disk, and counted.
        await room.snapshots.create("box", second.chain)
        before = room.on_disk()
        pruned = await room.images.prune(lambda image: image.id == second.id, {})
        usage = await room.images.usage()
        assert usage.strays == (700 if kind == "overlay" else 5700)
        assert before - pruned.freed == room.on_disk()
        await room.snapshots.remove("box")
        assert (await room.images.usage()).strays == 0
        assert await room.images.prune(lambda _: True, {})
        assert room.on_disk() == (await room.images.usage()).total() == 0


async def test_prune_leaves_what_containers_use(room: Room, registry: FakeRegistry) -> None:
    registry.image("a", "1", LOWER)
    registry.image("b", "1", UPPER, labels={"x": "y"})
    used, free = await room.pull(registry, "a:1"), await room.pull(registry, "b:1")
    before = room.on_disk()
    pruned = await room.images.prune(lambda _: True, {used: ["c" * 64]})
    assert next(one.text for one in pruned.removals if one.kind == "Untagged") == f"{registry.host}/b:1"
    assert free in [one.text for one in pruned.removals]
    assert pruned.freed == before - room.on_disk()
    assert [str(image.id) for image in await room.images.list()] == [used]


async def test_every_tag(room: Room, registry: FakeRegistry) -> None:
    for number in range(3):
        registry.image("many", str(number), LOWER, tar(f"n{number}"))
    pulled = await room.images.pull_all(Reference.parse(f"{registry.host}/many"))
    assert [image.repo_tags for image in pulled] == [(f"{registry.host}/many:{number}",) for number in range(3)]
    # The layer that all have was asked for once.
    assert len([one for one in registry.requests if "/blobs/" in one]) == 3 + 4
    with pytest.raises(PullFailed):
        await room.images.pull_all(Reference.parse(f"{registry.host}/none"))


async def test_old_manifests_are_named(room: Room, registry: FakeRegistry) -> None:
    registry.manifests["old:1"] = (mediatype.DOCKER_SCHEMA1_SIGNED, b'{"schemaVersion": 1, "name": "old"}')
    with pytest.raises(OldManifest, match="schema 1, which is not supported"):
        await room.pull(registry, "old:1")


async def test_a_broken_connection_goes_on_where_it_was(room: Room, registry: FakeRegistry) -> None:
    noise = tar(("noise", {"data": os.urandom(300_000)}))
    registry.image("app", "1", noise)
    registry.broken_after = 100_000
    await room.pull(registry, "app:1")
    starts = [int(one.split()[1]) for one in registry.requests if "/blobs/" in one]
    assert starts.count(0) == 2  # config and layer
    assert any(0 < start <= 100_000 for start in starts)


async def test_distribution_without_a_pull(room: Room, registry: FakeRegistry) -> None:
    amd = registry.manifest("app", LOWER, architecture="amd64")
    digest = registry.index("app", "1", amd64=amd)
    found = await room.images.distribution(Reference.parse(f"{registry.host}/app:1"))
    assert (found.descriptor.digest, found.platforms) == (digest, (AMD,))
    single = await room.images.distribution(Reference.parse(f"{registry.host}/app@{amd}"))
    assert (single.descriptor.digest, single.platforms) == (amd, (AMD,))
    with pytest.raises(PullFailed):
        await room.images.distribution(Reference.parse(f"{registry.host}/nothere"))
    assert await room.images.list() == []


# -- mirrors


async def test_a_mirror_is_asked_first(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.image("library/app", "1", LOWER)
    rules = Registries((RegistryRule("docker.io", (Mirror.parse(f"http://{registry.host}"),), mirrors_only=True),))
    async with opened(tmp_path / "home", rules) as room:
        image = await room.images.pull(Reference.parse("app:1"))
        assert image.repo_tags == ("app:1",)
        assert set(registry.seen) == {""}


async def test_the_registry_helps_out_for_its_mirrors(tmp_path: Path, registry: FakeRegistry) -> None:
    """One mirror is not there, one has another content under the same digest, one is down half way."""
    noise = tar(("noise", {"data": os.urandom(300_000)}))
    digest = registry.image("team/app", "1", noise)
    async with serving(FakeRegistry()) as liar, serving(FakeRegistry()) as partial:
        liar.manifests["cache/team/app:1"] = registry.manifests["team/app:1"]
        liar.blobs = {name: b"!" * len(data) for name, data in registry.blobs.items()}
        partial.manifests["team/app:1"] = registry.manifests["team/app:1"]
        partial.blobs = {name: data for name, data in registry.blobs.items() if len(data) < 1000}
        mirrors = ("http://127.0.0.1:1", f"http://{liar.host}/cache", f"http://{partial.host}")
        rules = Registries((RegistryRule(registry.host, tuple(map(Mirror.parse, mirrors))),))
        async with opened(tmp_path / "home", rules) as room:
            image = await room.images.pull(Reference.parse(f"{registry.host}/team/app:1"))
            assert image.manifest_digest == digest
            assert liar.requests
            assert partial.requests
            assert any("/blobs/" in one for one in registry.requests)


async def test_mirrors_only_means_it(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.image("app", "1", LOWER)
    rules = Registries((RegistryRule(registry.host, (Mirror.parse("http://127.0.0.1:1"),), mirrors_only=True),))
    async with opened(tmp_path / "home", rules) as room:
        with pytest.raises(Exception, match="127.0.0.1:1"):
            await room.pull(registry, "app:1")
    assert registry.requests == []


def test_the_registries_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    file = tmp_path / "registries.toml"
    file.write_text(f"""
        [[registry]]
        host = "docker.io"
        mirrors = ["https://one.example", {{ url = "http://two.example:5000/hub", username = "u", password-file = "{tmp_path}/password" }}]
        mirrors-only = true
        [[registry]]
        host = "*"
        mirrors = ["https://all.example/cache"]
        insecure = false
    """)
    rules = read_rules(file)
    first, second = rules.of("docker.io").mirrors
    assert (str(first), str(second)) == ("https://one.example/", "http://two.example:5000/hub/")
    assert second.credentials.password == "secret"
    (every,) = rules.of("quay.io").mirrors
    path = every.path(Reference.parse("quay.io/team/app"), named=True)
    assert path.value == "cache/quay.io/team/app"
    more = joined([parse_mirror_flag("http://three.example"), *rules.rules])
    assert next(str(one) for one in more.of("docker.io").mirrors) == "http://three.example/"
    assert more.of("docker.io").mirrors_only


@pytest.mark.parametrize("text", [
    "x = 1", "registry = 3", "[[registry]]\nmirrors = []", "[[registry]]\nhost = 'a/b'",
    "[[registry]]\nhost = 'a'\nmirror = []", "[[registry]]\nhost = 'a'\nmirrors = ['ftp://x']",
    "[[registry]]\nhost = 'a'\nmirrors = [3]", "[[registry]]\nhost = 'a'\ninsecure = 'yes'",
    "[[registry]]\nhost = 'a'\nmirrors = [{url = 'http://x', pass = 'y'}]",
    "[[registry]]\nhost = 'a'\nmirrors = ['http://u:p@x']", "[[registry]]\nhost = 'a'\nmirrors = ['http://x/UP']",
])  # fmt: skip
def test_wrong_registries_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(text)
    with pytest.raises(InvalidMirror, match="registries.toml|invalid mirror"):
        read_rules(file)


# -- images that go by themselves


def keeper(room: Room, policy: Policy, disk: list[float] | None = None) -> tuple[Keeper, EventBus]:
    bus = EventBus()
    shares = iter(disk or [0.0])
    return Keeper(room.images, room.uses, lambda: room.in_use, ImageNews(bus), policy, lambda: next(shares)), bus


async def test_what_nothing_uses_for_long_goes(room: Room, registry: FakeRegistry) -> None:
    for name in ("old", "used", "kept"):
        registry.image(name, "1", LOWER, tar(name))
        await room.pull(registry, f"{name}:1")
    used = await room.images.get(f"{registry.host}/used:1")
    room.in_use[str(used.id)] = ["c" * 64]
    collecting, bus = keeper(room, Policy(timedelta(days=30), keep=("*/kept:*",)))
    now = datetime.now(UTC)
    assert await collecting.turn(now + timedelta(days=29)) == []
    gone = await collecting.turn(now + timedelta(days=31))
    assert [image.repo_tags[0] for image in gone] == [f"{registry.host}/old:1"]
    assert [event.action for event in bus.past()] == ["untag", "untag", "delete"]
    # Its last container gone, an image has as long again, counted from when it was last seen in use.
    room.in_use.clear()
    assert await collecting.turn(now + timedelta(days=59)) == []
    assert [image.id for image in await collecting.turn(now + timedelta(days=62))] == [used.id]
    assert [image.repo_tags[0] for image in await room.images.list()] == [f"{registry.host}/kept:1"]


async def test_a_full_disk_takes_the_least_recently_used_first(room: Room, registry: FakeRegistry) -> None:
    for name in ("first", "second", "third"):
        registry.image(name, "1", tar(name))
        await room.pull(registry, f"{name}:1")
        await asyncio.sleep(0.002)
    await room.images.ensure_unpacked(await room.images.get(f"{registry.host}/first:1"))  # a container is made of it
    collecting, _ = keeper(room, Policy(disk=85), [86.0, 82.0, 79.0])
    gone = await collecting.turn(datetime.now(UTC))
    assert [image.repo_tags[0].rpartition("/")[2] for image in gone] == ["second:1", "third:1"]
    collecting, _ = keeper(room, Policy(disk=85), [84.0])
    assert await collecting.turn(datetime.now(UTC)) == []


async def test_a_download_given_up_leaves_nothing(room: Room, registry: FakeRegistry) -> None:
    registry.image("app", "1", tar(("noise", {"data": os.urandom(300_000)})))
    registry.broken_after = 100_000
    layer = max(registry.blobs, key=lambda name: len(registry.blobs[name]))
    data = registry.blobs[layer]
    registry.blobs[layer] = data[:50_000]  # a registry that lost the rest
    with pytest.raises(Exception, match="unreachable|ended early|payload|broke|closed"):
        await room.pull(registry, "app:1")
    assert room.on_disk() > 0
    await room.images.tidy(timedelta(0))
    assert room.on_disk() == 0
    registry.blobs[layer] = data
    await room.pull(registry, "app:1")


async def test_pulls_at_once_share_what_they_have_in_common(room: Room, registry: FakeRegistry) -> None:
    """Twelve pulls of six names, three layers of which are everybody's, while one name is removed again and again."""
    for number in range(6):
        registry.image(f"app{number}", "1", LOWER, UPPER, OTHER, tar(f"own{number}"))
    await room.pull(registry, "app0:1")
    registry.requests.clear()
    first = f"{registry.host}/app0:1"

    async def churn() -> None:
        for _ in range(5):
            with contextlib.suppress(ImageNotFound):
                await room.images.remove(first)
            await room.pull(registry, "app0:1")

    await asyncio.gather(churn(), *(room.pull(registry, f"app{number % 5 + 1}:1") for number in range(10)))
    assert len(await room.images.list()) == 6
    for image in await room.images.list():
        assert await room.images.ensure_unpacked(image) == image.chain
    assert room.on_disk() == (await room.images.usage()).total()
    await room.images.prune(lambda _: True, {})
    assert room.on_disk() == 0


async def test_a_pull_goes_on_after_the_daemon_was_gone(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.image("app", "1", tar(("noise", {"data": os.urandom(400_000)})))
    layer = max(registry.blobs, key=lambda name: len(registry.blobs[name]))
    whole = registry.blobs[layer]
    registry.blobs[layer] = whole[:200_000]
    async with opened(tmp_path / "home") as room:
        with pytest.raises(Exception, match="unreachable|ended early|payload|broke|closed"):
            await room.pull(registry, "app:1")
        assert await room.images.list() == []
    registry.blobs[layer] = whole
    registry.requests.clear()
    async with opened(tmp_path / "home") as room:
        await room.pull(registry, "app:1")
    assert [one.split()[1] for one in registry.requests if layer in one] == ["200000"]
