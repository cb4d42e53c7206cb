"""The schema of state.db, a module a noun. A change needs a migration in `migrations/node/versions`."""

from node.state.tables.containers import containers
from node.state.tables.images import downloads, image_uses, layer_sizes
from node.state.tables.naming import metadata
from node.state.tables.networks import networks
from node.state.tables.secrets import secrets
from node.state.tables.settings import settings
from node.state.tables.volumes import volumes

__all__ = ["containers", "downloads", "image_uses", "layer_sizes", "metadata", "networks", "secrets", "settings",
           "volumes"]
