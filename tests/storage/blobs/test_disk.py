"""What only a disk does: durable layout, locks between processes, full file systems, cancelled threads."""

import asyncio
import os
import stat
import subprocess
import sys
import time

import pytest

from storage.blobs import disk
from storage.blobs.disk import DiskBlobs
from storage.blobs.keys import InvalidKey, new_key, object_name, parse_key
from storage.blobs.store import BytesMissing, CannotShare, KeyBusy, LocalFiles, SharedFiles, StorageKey
from storage.errors import StoreFull


@pytest.fixture
async def blobs(tmp_path) -> DiskBlobs:
    store = DiskBlobs(tmp_path / "content")
    await store.prepare()
    return store


async def test_a_sealed_file_is_read_only_and_lies_where_path_says(blobs):
    assert isinstance(blobs, LocalFiles)
    writer = await blobs.create()
    await writer.write([b"bytes"])
    await writer.seal()
    path = blobs.path(writer.key)
    assert path.read_bytes() == b"bytes"
    assert stat.S_IMODE(path.stat().st_mode) == 0o440


async def test_prepare_is_repeatable_and_keeps_what_is_there(blobs):
    writer = await blobs.create()
    await writer.seal()
    await blobs.prepare()
    assert await blobs.size(writer.key) == 0


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n", "/" * 32])
def test_only_our_keys_become_paths(text):
    with pytest.raises(InvalidKey):
        parse_key(text)
    with pytest.raises(InvalidKey):
        object_name(StorageKey(text))


async def test_a_link_in_place_of_a_blob_is_not_followed(blobs, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    key = new_key()
    blobs.path(key).symlink_to(secret)
    with pytest.raises(Exception, match="symbolic links"):
        async for _ in blobs.read(key):
            pass


async def test_foreign_files_in_the_folders_are_left_out(blobs):
    (blobs.path(new_key()).parent / "lost+found").mkdir()
    assert [item async for item in blobs.list()] == []


async def test_another_process_cannot_write_the_same_key(blobs, tmp_path):
    writer = await blobs.create()
    await writer.write([b"x"])
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from storage.blobs.disk import DiskBlobs\nfrom storage.blobs.store import KeyBusy\n"
        "async def main():\n"
        "    try:\n        await DiskBlobs(Path(sys.argv[1])).resume(sys.argv[2], 0)\n"
        "    except KeyBusy:\n        return 42\n"
        "sys.exit(asyncio.run(main()))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "content"), writer.key]
    assert await asyncio.to_thread(subprocess.call, command) == 42
    await writer.close()
    assert await asyncio.to_thread(subprocess.call, command) == 0


async def test_a_cancelled_write_is_over_before_its_caller_knows(blobs, monkeypatch):
    """Else the descriptor could be closed, and its number given to another file, under a thread that still writes."""
    writer = await blobs.create()
    started, ended = asyncio.Event(), []
    loop = asyncio.get_running_loop()
    real = os.writev

    def slow(file, views):
        loop.call_soon_threadsafe(started.set)
        time.sleep(0.2)
        written = real(file, views)
        ended.append(written)
        return written

    monkeypatch.setattr(disk.os, "writev", slow)
    task = asyncio.create_task(writer.write([b"whole"]))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [5]
    assert writer.offset == 5
    await writer.close()


async def test_a_short_write_is_continued(blobs, monkeypatch):
    real = os.writev
    monkeypatch.setattr(disk.os, "writev", lambda file, views: real(file, [bytes(views[0][:3])]))
    writer = await blobs.create()
    await writer.write([b"0123456789", b"abc"])
    await writer.seal()
    assert blobs.path(writer.key).read_bytes() == b"0123456789abc"


async def test_descriptors_are_given_back(blobs):
    async def use():
        writer = await blobs.create()
        await writer.write([b"x" * 3_000_000])
        with pytest.raises(KeyBusy):
            await blobs.resume(writer.key, 0)
        await writer.seal()
        async for _ in blobs.read(writer.key):
            break
        with pytest.raises(BytesMissing):
            await blobs.resume(new_key(), 1)

    await use()
    deadline = time.monotonic() + 5
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await use()
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline, "descriptors leak"
        await asyncio.sleep(0.01)


@pytest.mark.root
async def test_a_full_disk_says_so_and_tells_what_it_kept(small_disk):
    blobs = DiskBlobs(small_disk)
    await blobs.prepare()
    writer = await blobs.create()
    with pytest.raises(StoreFull):
        await writer.write([b"x" * 1_000_000] * 100)
    kept = writer.offset
    assert 0 < kept < 100_000_000
    assert await blobs.size(writer.key) == kept
    await writer.close()
    await blobs.delete(writer.key)
    writer = await blobs.create()
    await writer.write([b"y" * 1_000_000])
    await writer.seal()


@pytest.fixture
def theirs(tmp_path):
    """A file of another program, long unchanged."""
    path = tmp_path / "theirs"
    path.write_bytes(b"their bytes")
    path.chmod(0o644)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


async def test_a_link_is_the_same_file_and_leaves_it_as_it_was(blobs, theirs):
    assert isinstance(blobs, SharedFiles)
    before = theirs.stat()
    with theirs.open("rb") as file:
        theirs.rename(theirs.with_name("renamed"))  # the descriptor counts, not the name
        key = await blobs.link(file.fileno())
    after = blobs.path(key).stat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    theirs.with_name("renamed").unlink()
    assert b"".join([chunk async for chunk in blobs.read(key)]) == b"their bytes"


async def test_a_fresh_link_to_an_old_file_looks_fresh(blobs, theirs):
    """Or the collector would take it for what a crash left, before its row is written."""
    with theirs.open("rb") as file:
        key = await blobs.link(file.fileno())
    (stored,) = [item async for item in blobs.list()]
    assert stored.key == key
    assert time.time() - stored.modified.timestamp() < 60


@pytest.mark.root
async def test_what_lies_elsewhere_cannot_be_shared(blobs, small_disk):
    (small_disk / "theirs").write_bytes(b"their bytes")
    with (small_disk / "theirs").open("rb") as file:
        for share in (blobs.link, blobs.clone):
            with pytest.raises(CannotShare, match="file system"):
                await share(file.fileno())
    assert [item async for item in blobs.list()] == []


async def test_a_clone_shares_or_says_that_it_cannot(blobs, theirs):
    with theirs.open("rb") as file:
        try:
            key = await blobs.clone(file.fileno())
        except CannotShare:
            assert [item async for item in blobs.list()] == []
            return
    theirs.write_bytes(b"other")
    assert b"".join([chunk async for chunk in blobs.read(key)]) == b"their bytes"
    assert stat.S_IMODE(blobs.path(key).stat().st_mode) == 0o440
