"""What rules forbid. The kind is PermissionDenied: clients show `denied: <message>` and do not try again."""

from ocispec.errors import PermissionDenied
from ocispec.reference import RepositoryName, Tag
from storage.metadata.rules import ImmutableRule
from storage.rules.book import Quota


class TagImmutable(PermissionDenied):
    """A rule says that the tag stays what it is."""

    def __init__(self, repo: RepositoryName, tag: Tag, rule: ImmutableRule) -> None:
        super().__init__(f"tag {tag} of {repo} is immutable (rule {rule.repositories}:{rule.tags}): push under another "
                         "tag", detail={"tag": tag.value, "rule": f"{rule.repositories}:{rule.tags}"})


class TagExists(PermissionDenied):
    """Whoever pushes may create tags, not move them."""

    def __init__(self, repo: RepositoryName, tag: Tag) -> None:
        super().__init__(f"tag {tag} of {repo} exists, and you may not move tags: push under another tag",
                         detail={"tag": tag.value})


class QuotaExceeded(PermissionDenied):
    """A namespace would hold more than its limit. Sizes in bytes."""

    def __init__(self, quota: Quota, used: int, asked: int) -> None:
        super().__init__(f"quota exceeded: {quota} holds {used} of {quota.limit} bytes, {asked} more do not fit",
                         detail={"namespace": quota.namespace or "**", "limit": quota.limit, "used": used,
                                 "asked": asked})
        self.quota, self.used, self.asked = quota, used, asked
