"""Everything a set of repositories can do, put together."""

from storage.blobs.store import BlobStore
from storage.metadata.engine import Database
from storage.repository.blobs import RepositoryBlobs
from storage.repository.intake import Intake
from storage.repository.manifests import Manifests
from storage.repository.overview import Overview
from storage.repository.pulls import Pulls
from storage.repository.referrers import Referrers
from storage.repository.tags import Tags
from storage.rules.quotas import Quotas
from storage.rules.service import Rules
from storage.settings import ContentSettings
from storage.uploads.session import Uploads


class ContentStore:
    """What a composition root builds once from an open database and a prepared blob store, for one event loop."""

    def __init__(self, database: Database, blobs: BlobStore, settings: ContentSettings | None = None, *,
                 rules: Rules | None = None) -> None:
        settings = settings or ContentSettings()
        self.look = database.changes.look  # a server awaits it once for each request, before it asks anything here
        self.rules = rules or Rules(database)
        self.blobs = RepositoryBlobs(database, blobs, settings, self.rules)
        self.uploads = Uploads(database, blobs, settings, Quotas(self.rules))
        self.intake = Intake(database, blobs, settings, self.rules)
        self.manifests = Manifests(database, settings, self.rules)
        self.tags = Tags(database, self.rules)
        self.referrers = Referrers(database)
        self.overview = Overview(database)
        self.pulls = Pulls(database, tell=settings.pull_events)
