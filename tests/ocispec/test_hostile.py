"""Whatever comes, a parser gives a value that keeps its promises or refuses in its own words."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import ALGORITHMS, Digest, InvalidDigest
from ocispec.errors import InvalidArgument
from ocispec.image import ImageConfig
from ocispec.reference import InvalidName, InvalidTag, Reference, RepositoryName, Tag, referrers_tag

NAMES = st.text(max_size=60) | st.text(alphabet="ab0._-/:@A", max_size=60) | st.text(alphabet="a/", max_size=600)
DIGESTS = st.binary(max_size=8).flatmap(lambda data: st.sampled_from([str(Digest.of(data, a)) for a in ALGORITHMS]))
FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType",
          "digest", "size", "platform", "urls", "data", "Layers", "os", "architecture", "variant", "rootfs", "diff_ids"]
LEAVES = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | DIGESTS | st.just(2)
          | st.sampled_from(sorted(mediatype.MANIFESTS)))
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6), max_leaves=25)


@given(st.text(max_size=150) | DIGESTS | DIGESTS.map(lambda text: text + "0") | DIGESTS.map(str.upper)
       | DIGESTS.map(lambda text: text.replace("sha", "md")))
def test_digests(text: str) -> None:
    try:
        parsed = Digest.parse(text)
    except InvalidDigest:
        return
    assert str(parsed) == text
    assert Tag.parse(str(referrers_tag(parsed)))


@given(NAMES)
def test_names(text: str) -> None:
    try:
        name = RepositoryName.parse(text)
    except InvalidName:
        return
    assert str(name) == text
    assert len(text) <= 255
    for part in text.split("/"):
        assert part
        assert part[0].isalnum()
        assert part[-1].isalnum()
        assert part == part.lower()


@given(NAMES)
def test_tags(text: str) -> None:
    try:
        tag = Tag.parse(text)
    except InvalidTag:
        return
    assert str(tag) == text
    assert not set(text) & set("/:@ \r\n\x00")


@given(NAMES)
def test_references(text: str) -> None:
    try:
        parsed = Reference.parse(text)
    except InvalidArgument:
        return
    assert Reference.parse(str(parsed)) == parsed


@given(JSON, st.sampled_from(["", *sorted(mediatype.MANIFESTS), "application/json; x=y", "\x00"]))
@hypothesis(suppress_health_check=[HealthCheck.too_slow])
def test_manifests(value: Any, content_type: str) -> None:
    raw = json.dumps(value).encode()
    for document in (raw, raw.replace(b"{", b'{"schemaVersion": 2, ', 1)):
        try:
            parsed = manifests.parse(document, content_type)
        except InvalidArgument as error:
            assert len(error.message) < 1000
            continue
        assert parsed.raw == document
        assert json.loads(json.dumps(parsed.descriptor(parsed.digest()).to_json()))


@given(JSON)
@hypothesis(suppress_health_check=[HealthCheck.too_slow])
def test_descriptors_and_configs(value: Any) -> None:
    for parse in (Descriptor.from_json, lambda item: ImageConfig.parse(json.dumps(item).encode())):
        try:
            parse(value)
        except InvalidArgument as error:
            assert len(error.message) < 1000


@pytest.mark.parametrize("raw", [b"", b"\x00", b"null", b"0", b'""', b"[]", b"{" * 100_000, b'{"a"' * 1000])
def test_what_is_hardly_json(raw: bytes) -> None:
    for parse in (manifests.parse, ImageConfig.parse):
        with pytest.raises(InvalidArgument):
            parse(raw)
