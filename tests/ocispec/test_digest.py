"""Digests: the upstream table, and what must never pass."""

import hashlib
import json

import pytest

from ocispec.digest import ALGORITHMS, Digest, InvalidDigest, new_hasher


def test_the_upstream_table(shared):
    """We compute sha256 and sha512 alone, so sha384, which the table lets pass, is refused by name."""
    cases = json.loads((shared / "oci/digest/digest_test.json").read_text())
    assert len(cases) == 17
    for case in cases:
        text = case["Input"]
        if "Err" in case or case["Algorithm"] not in ALGORITHMS:
            with pytest.raises(InvalidDigest):
                Digest.parse(text)
        else:
            digest = Digest.parse(text)
            assert (digest.algorithm, digest.encoded, str(digest)) == (case["Algorithm"], case["Encoded"], text)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_is_what_hashlib_says(algorithm):
    data = b"some bytes"
    assert str(Digest.of(data, algorithm)) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest.parse(str(Digest.of(data, algorithm))) == Digest.of(data, algorithm)


@pytest.mark.parametrize("text", [
    "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:" + "A" * 64, "sha256:" + "g" * 64, "sha512:" + "a" * 64,
    "sha256:" + "a" * 64 + "\n", "\nsha256:" + "a" * 64, " sha256:" + "a" * 64, "SHA256:" + "a" * 64,
    "sha256:../../../../../../../../../../../../../../../../etc/passwd/aaaaaaaaa", "sha256:" + "a" * 64 + "/..",
    "md5:" + "a" * 32, "sha1:" + "a" * 40, "sha256:" + "a" * 10_000, "sha256" + "a" * 64, "sha256:" + "٣" * 64,
    "sha256:" + "a" * 63 + "\x00",
])
def test_what_must_not_pass(text):
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@pytest.mark.parametrize("name", ["md5", "sha1", "", "sha256\x00", "SHA256", "shake_256"])
def test_other_algorithms_are_refused(name):
    with pytest.raises(InvalidDigest):
        new_hasher(name)


def test_short_is_what_docker_shows():
    assert Digest.of(b"").short == "e3b0c44298fc"
