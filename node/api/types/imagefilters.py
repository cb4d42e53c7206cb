"""Which images a list shows (`docker images --filter`)."""

import fnmatch
from collections.abc import Mapping, Sequence

from node.api.types.units import epoch, parse_time
from node.images.image import Image
from ocispec.errors import InvalidArgument
from ocispec.reference import InvalidReference, Reference

_PRUNE = frozenset({"dangling", "label", "label!", "until"})
KNOWN = frozenset({"dangling", "label", "label!", "reference", "before", "since", "until"})


class ImageFilter:
    """`before` and `since` are matched against moments the caller has found out (`moments`: name → seconds)."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        for name in values:
            if name not in KNOWN:
                raise InvalidArgument(f"invalid filter '{name}'")
        for value in values.get("dangling", ()):
            if value.lower() not in ("true", "false", "1", "0"):
                raise InvalidArgument(f"invalid filter 'dangling={value}'")
        self._values = values

    def moments(self) -> list[str]:
        """The image names whose creation bounds the list."""
        return [*self._values.get("before", ()), *self._values.get("since", ())]

    def matches(self, image: Image, moments: Mapping[str, int], until: int) -> bool:
        values, created = self._values, epoch(image.created)
        if dangling := values.get("dangling"):
            wanted = dangling[-1].lower() in ("true", "1")
            if wanted == bool(image.repo_tags):
                return False
        if any(not self._labelled(image, text) for text in values.get("label", ())):
            return False
        if any(self._labelled(image, text) for text in values.get("label!", ())):
            return False
        if any(created >= moments[name] for name in values.get("before", ())):
            return False
        if any(created <= moments[name] for name in values.get("since", ())):
            return False
        if until and created >= until:
            return False
        return "reference" not in values or bool(self.names(image.repo_tags) or self.names(image.repo_digests))

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of an image's names that the list shows: all, or those that match a reference."""
        patterns = self._values.get("reference", ())
        return tuple(name for name in names if not patterns or any(_matches(pattern, name) for pattern in patterns))

    @staticmethod
    def _labelled(image: Image, text: str) -> bool:
        labels = image.config.config.get("Labels")
        key, equals, wanted = text.partition("=")
        return isinstance(labels, dict) and key in labels and (not equals or labels[key] == wanted)


class PruneFilter:
    """`docker image prune`: those without a tag, or with `dangling=false` whatever no container uses. Raises
    InvalidArgument."""

    def __init__(self, values: Mapping[str, Sequence[str]], now: float) -> None:
        for name in values:
            if name not in _PRUNE:
                raise InvalidArgument(f"invalid filter '{name}'")
        dangling, until = values.get("dangling", ("true",)), values.get("until", ())
        if len(dangling) != 1 or dangling[0].lower() not in ("true", "false", "1", "0"):
            raise InvalidArgument(f"invalid filter 'dangling={list(dangling)}'")
        if len(until) > 1:
            raise InvalidArgument("more than one until filter specified")
        self._dangling = dangling[0].lower() in ("true", "1")
        self._until = parse_time(until[0], now) // 10**9 if until else 0
        self._labels = ImageFilter({name: values[name] for name in ("label", "label!") if name in values})

    def matches(self, image: Image) -> bool:
        return not (self._dangling and image.repo_tags) and self._labels.matches(image, {}, self._until)


def _matches(pattern: str, name: str) -> bool:
    """The pattern against the familiar name and against the whole reference, with and without the tag."""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return False
    texts = (reference.familiar(), reference.familiar_name, str(reference), f"{reference.domain}/{reference.path}")
    return any(_same_depth(pattern, text) and fnmatch.fnmatchcase(text, pattern) for text in texts)


def _same_depth(pattern: str, text: str) -> bool:
    # In Go's path.Match a star does not cross a slash.
    return pattern.count("/") == text.count("/")
