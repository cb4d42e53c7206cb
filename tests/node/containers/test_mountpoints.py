"""Sources of mounts: made, missing, claimed, and what a container without one comes to."""

from dataclasses import replace

import pytest

from node.containers.errors import CannotStart, InvalidSpec
from node.containers.mounting import Mounting
from node.containers.mountspec import MountSpec
from node.events import EventBus
from ocispec.errors import NotFound
from tests.node.containers.fakes import FakeVolumes


async def test_a_missing_folder_is_made_at_each_start(node, tmp_path):
    source = tmp_path / "a" / "b"
    await node.run(mounts=(MountSpec.parse_bind(f"{source}:/b"),))
    assert source.is_dir()
    await node.containers.stop("box", timeout=0)
    source.rmdir()
    await node.containers.start("box")
    assert source.is_dir()


async def test_a_node_that_makes_no_folders_says_so(cold_node, tmp_path):
    cold_node.site = {"create_bind_sources": False}
    async with cold_node.opened():
        source = tmp_path / "typo"
        with pytest.raises(InvalidSpec, match="does not exist: .*typo .this node makes no missing folders"):
            await cold_node.run(mounts=(MountSpec.parse_bind(f"{source}:/b"),))
        assert not source.exists()


async def test_an_entry_of_mounts_needs_its_source(node, tmp_path):
    with pytest.raises(InvalidSpec, match="bind source path does not exist"):
        await node.run(mounts=(MountSpec("bind", "/b", str(tmp_path / "typo")),))
    await node.run(mounts=(MountSpec("bind", "/b", str(tmp_path / "made"), create_source=True),))
    assert (tmp_path / "made").is_dir()


async def test_a_start_that_fails_holds_no_volume(node, tmp_path):
    await node.run(mounts=(MountSpec.parse_bind("data:/d"),))
    holder = next(iter(node.volumes.holders))
    assert holder[0] == "data"
    await node.containers.stop("box", timeout=0)
    assert node.volumes.holders == set()
    assert [event.action for event in node.events.past() if event.type == "volume"] == ["mount", "unmount"]
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="error while creating mount source path"):
        await node.run("other", mounts=(MountSpec.parse_bind("data:/d"),
                                        MountSpec.parse_bind(f"{tmp_path}/file/below:/b")))  # fmt: skip
    assert node.volumes.holders == set()
    assert node.volumes.claims == []


async def test_secrets_are_found_at_create_and_read_at_start(node):
    mounts = (MountSpec("secret", "/run/secrets/password", "password", read_only=True, owner=(1, 2)),)
    await node.run(mounts=mounts)
    request = node.launcher.last.request
    assert [(file.size, file.uid, file.gid, file.mode) for file in request.files] == [(7, 1, 2, 0o444)]
    assert len(request.fds) == 1
    assert node.containers.secrets_in_use() == {"password": ["box"]}
    with pytest.raises(NotFound, match="secret nothing not found"):
        await node.run("other", mounts=(replace(mounts[0], source="nothing"),))


async def test_mounting_lets_go_when_a_volume_cannot_be_mounted(node, tmp_path):
    class Broken(FakeVolumes):
        async def acquire(self, name, holder):
            if name == "bad":
                raise CannotStart("no")
            await super().acquire(name, holder)

    await node.run(mounts=(MountSpec.parse_bind("good:/g"), MountSpec.parse_bind("bad:/b")))
    container = await node.containers.get("box")
    volumes = Broken(tmp_path)
    with pytest.raises(CannotStart):
        await Mounting(volumes, EventBus()).begin(container)
    assert volumes.holders == set()
