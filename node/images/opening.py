"""Putting the room together: the only place that constructs its parts."""

import contextlib
from collections.abc import AsyncIterator

from node.images.archive.intake import Intake
from node.images.catalog import CatalogReader
from node.images.census import Census
from node.images.layers import Layers
from node.images.pull import Puller
from node.images.push import Pusher
from node.images.shared import SharedLayers
from node.images.store import Images, ImageSettings
from node.images.unpack.pool import UnpackPool
from node.snapshots.store import Snapshotter
from node.state.database import State
from node.state.images import ImageUseRows
from node.state.snapshots import DownloadRows, LayerSizeRows
from storage.blobs.store import BlobAdmin
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.repository.store import ContentStore


@contextlib.asynccontextmanager
async def open_images(content: ContentStore, content_blobs: BlobAdmin, leases: Leases, collector: Collector,
                      snapshots: Snapshotter, state: State, settings: ImageSettings,
                      shared: SharedLayers | None = None) -> AsyncIterator[Images]:
    """Starts the unpack workers; ending it cancels every pull."""
    sizes = LayerSizeRows(state)
    async with UnpackPool(settings.unpack, settings.workers) as pool:
        layers = Layers(content, snapshots, pool, sizes, DownloadRows(state), shared)
        reader = CatalogReader(content, sizes, settings.platform)
        census = Census(content_blobs, snapshots, sizes)
        puller = Puller(content, leases, layers, settings.downloads)
        try:
            yield Images(content, puller, Pusher(content, settings.uploads), layers, reader, sizes, collector, census,
                         ImageUseRows(state), Intake(content, leases, puller, layers), settings)
        finally:
            await layers.close()
