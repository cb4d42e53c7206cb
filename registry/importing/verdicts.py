"""Why something may not become ours."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from ocispec.errors import AlreadyExists, FailedPrecondition, InvalidArgument, PermissionDenied, SeawallError
from ocispec.mediatype import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, MANIFESTS
from registry.importing.journal import Class, Damaged
from storage.errors import StoreFull

OURS = (InvalidArgument, FailedPrecondition, PermissionDenied, AlreadyExists)
"""Kinds of refusal that concern one thing; any other (full, unavailable) ends the import, to be continued."""


def unfit(raw: bytes) -> Class:
    """Which class of damage bytes are that could not be parsed as a manifest."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return Class.BAD_MANIFEST
    if not isinstance(document, dict):
        return Class.BAD_MANIFEST
    media_type = document.get("mediaType")
    if document.get("schemaVersion") == 1 or media_type in (DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED):
        return Class.SCHEMA1
    if isinstance(media_type, str) and media_type and media_type not in MANIFESTS:
        return Class.UNKNOWN_MANIFEST_TYPE
    return Class.BAD_MANIFEST


@contextmanager
def refused(path: str) -> Iterator[None]:
    """Turns our own refusal into an entry of the report."""
    try:
        yield
    except StoreFull:
        raise
    except SeawallError as error:
        if not isinstance(error, OURS):
            raise
        raise Damaged(Class.REFUSED, path, error.message) from error
