"""How an image came to be: its config's history beside its layers' sizes."""

from collections.abc import Mapping

from node.images.image import HistoryEntry, Image
from ocispec.digest import Digest


def history(image: Image, sizes: Mapping[Digest, int]) -> list[HistoryEntry]:
    """Newest first. Steps that made no layer have size 0; a config without history gives one step a layer."""
    steps = list(image.config.history) or [{} for _ in image.config.diff_ids]
    layers = iter(image.config.diff_ids)
    entries = []
    for step in steps:
        diff_id = None if step.get("empty_layer") is True else next(layers, None)
        entries.append(HistoryEntry(
            id="<missing>", created=_text(step.get("created")), created_by=_text(step.get("created_by")),
            comment=_text(step.get("comment")), size=sizes.get(diff_id, 0) if diff_id else 0, tags=(),
        ))
    entries.reverse()
    if entries:
        newest = entries[0]
        entries[0] = HistoryEntry(str(image.id), newest.created, newest.created_by, newest.comment, newest.size,
                                  image.repo_tags)
    return entries


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
