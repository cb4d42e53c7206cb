"""Settings of the content store. A program reads its own file and environment and hands these over."""

from dataclasses import dataclass
from datetime import timedelta

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """Sizes are bytes.

    `upload_batch`: what is gathered before one write; at most two batches are in memory for an upload.
    `upload_memory`: what the batches of all uploads of a process may take together: with many at once they get smaller
    (see `uploads.batch`).
    `checkpoint_bytes`, `checkpoint_every`: how much of a long append may be lost when the process dies.
    `cache_bytes`: manifests kept in memory, counted with their keys.
    `touch_every`: how long "a client was told this exists" is believed before it is written down again. Garbage
    collection must run with a grace above it.
    `redirect_for`: how long an address is good that clients are sent to for a blob's bytes, where the store has such;
    None: they are never sent away.
    `pull_events`: whether the event log hears of pulls, gathered by reference.
    """

    upload_batch: int = 2 * MIB
    upload_memory: int = 16 * MIB
    checkpoint_bytes: int = 64 * MIB
    checkpoint_every: timedelta = timedelta(seconds=30)
    cache_bytes: int = 64 * MIB
    touch_every: timedelta = timedelta(minutes=30)
    redirect_for: timedelta | None = None
    pull_events: bool = False
