"""A registry that collects all the time, with a grace of seconds, and stops for ever at a named step:
`collecting.py DATA DATABASE_URL PORT GRACE STEP`.

It prints `ready`, and the step when it is there; the test then kills it. Steps lie inside and between the collector's
transactions, and at its calls of the blob store.
"""

import asyncio
import dataclasses
import functools
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from registry import app
from registry.settings import GcSettings, Settings
from registry.workers import listen
from storage.blobs.disk import DiskBlobs
from storage.blobs.store import StorageKey
from storage.gc import bytes as gc_bytes
from storage.gc import duty, review, sweep
from storage.metadata import blobs as blob_rows
from storage.metadata import garbage, reviews, tombstones

STEPS = ["take", "look", "delete_manifests:2", "unlink_rows", "transaction:2", "transaction:5", "bury_all",
         "delete_blobs", "deleting:2", "deleted:2", "clear", "finish"]


class Stops:
    def __init__(self, step: str) -> None:
        self._step, _, number = step.partition(":")
        self._left = int(number or 1)

    async def at(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                print("at", step, flush=True)
                await asyncio.Event().wait()

    def after(self, module: object, name: str, step: str = "") -> None:
        """Stop when this function of the module is done; what comes after it in its transaction is not."""
        real = getattr(module, name)

        @functools.wraps(real)
        async def stopping(*args, **kwargs):
            result = await real(*args, **kwargs)
            await self.at(step or name)
            return result

        setattr(module, name, stopping)


def instrument(stops: Stops, grace: float) -> None:
    for module, name in ((reviews, "take"), (reviews, "finish"), (garbage, "delete_manifests"),
                         (garbage, "delete_blobs"), (blob_rows, "unlink_rows"), (tombstones, "bury_all"),
                         (tombstones, "clear")):
        stops.after(module, name)
    stops.after(review.Reviewer, "_look", "look")
    holding = review.holding

    @asynccontextmanager
    async def stopping(database, report):
        async with holding(database, report) as tx:
            yield tx
        await stops.at("transaction")

    review.holding = gc_bytes.holding = stopping

    class StoppingDisk(DiskBlobs):
        async def delete(self, key: StorageKey) -> None:
            await stops.at("deleting")
            await super().delete(key)
            await stops.at("deleted")

    app.DiskBlobs = StoppingDisk
    settle = app._content
    app._content = lambda settings: dataclasses.replace(settle(settings), touch_every=timedelta(seconds=grace / 10))
    # A push that is slower than this loses its bytes: no test is that slow.
    app.Collector = functools.partial(sweep.Collector, orphan_age=timedelta(seconds=30))
    blob_rows.A_MOMENT = timedelta(0)  # it must be far below the grace
    duty.TTL = timedelta(seconds=0.5)


def main(data: str, url: str, port: str, grace: str, step: str) -> None:
    instrument(Stops(step), float(grace))
    settings = Settings(
        data=Path(data), database=url, listen=f"127.0.0.1:{port}",
        gc=GcSettings(interval=0.02, full_interval=1.0, grace=float(grace), keep_untagged=False))
    (sockets,) = listen("127.0.0.1", int(port), 1, 60)
    sys.exit(app.run_worker(settings, sockets, app.shared_numbers(1), index=0, parent=None,
                            ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
