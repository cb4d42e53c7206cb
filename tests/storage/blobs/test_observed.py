"""A watched store can do what the store beneath can, and tells what it does."""

import inspect
from contextlib import contextmanager

import pytest

from storage.blobs import store as protocols
from storage.blobs.memory import MemoryBlobs
from storage.blobs.observed import observed
from storage.blobs.store import BytesMissing
from storage.observation import Uncounted

CAPABILITIES = [item for item in vars(protocols).values()
                if inspect.isclass(item) and getattr(item, "_is_runtime_protocol", False) and item.__module__ == protocols.__name__]


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes: dict[str, float] = {}

    @contextmanager
    def span(self, room, call):
        try:
            yield
        except Exception as error:
            self.calls.append(f"{room}.{call}!{type(error).__name__}")
            raise
        self.calls.append(f"{room}.{call}")

    def tally(self, what):
        recorder = self

        class Count(Uncounted):
            def add(self, amount=1.0) -> None:
                recorder.bytes[what] = recorder.bytes.get(what, 0) + amount

        return Count()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_capability_shows_through(capability) -> None:
    methods = {name: lambda *_: None for name in capability.__protocol_attrs__} if hasattr(
        capability, "__protocol_attrs__") else {name: lambda *_: None for name in vars(capability) if not name.startswith("_")}
    having = type("Having", (MemoryBlobs,), methods)()
    assert isinstance(having, capability)
    assert isinstance(observed(having, Recorder()), capability)


def test_no_capability_is_invented() -> None:
    bare = MemoryBlobs()
    assert [isinstance(observed(bare, Recorder()), one) for one in CAPABILITIES] == [
        isinstance(bare, one) for one in CAPABILITIES]


async def test_it_tells_what_it_does() -> None:
    recorder = Recorder()
    blobs = observed(MemoryBlobs(), recorder)
    writer = await blobs.create()
    await writer.write([b"12", b"345"])
    await writer.seal()
    await writer.close()
    assert [chunk async for chunk in blobs.read(writer.key)] == [b"12345"]
    await blobs.delete(writer.key)
    with pytest.raises(BytesMissing):
        _ = [chunk async for chunk in blobs.read(writer.key)]
    assert recorder.calls == ["store.create", "store.write", "store.seal", "store.read", "store.delete",
                              "store.read!BytesMissing"]
    assert recorder.bytes == {"store.write.bytes": 5, "store.read.bytes": 5}
