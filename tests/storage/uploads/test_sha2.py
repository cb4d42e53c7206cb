"""Hashing on from a recorded state gives hashlib's digests, and nothing else is ever taken for a state."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import ALGORITHMS, Digest, InvalidDigest
from storage.uploads import sha2
from storage.uploads.hashing import Hashed
from storage.uploads.sha2 import InvalidState, Resumable

pieces = st.lists(st.binary(max_size=300), max_size=5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_this_machine_can(algorithm):
    """CPython's own builds load OpenSSL; where that is otherwise everything else here still holds."""
    assert isinstance(sha2.make(algorithm), Resumable)


@given(st.sampled_from(ALGORITHMS), pieces, pieces)
def test_going_on_from_a_state(algorithm, before, after):
    hasher = sha2.make(algorithm)
    for piece in before:
        hasher.update(piece)
    again = sha2.restore(algorithm, hasher.state())
    for piece in after:
        again.update(bytearray(piece))
        hasher.copy().update(b"not this one")
    assert again.count == sum(map(len, before + after))
    assert again.hexdigest() == hashlib.new(algorithm, b"".join(before + after)).hexdigest()
    assert hasher.hexdigest() == hashlib.new(algorithm, b"".join(before)).hexdigest()


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=300), st.binary(max_size=100))
def test_any_bytes_are_a_state_or_refused_and_never_believed(algorithm, state, data):
    digest = Digest.of(data, algorithm)
    hashed = Hashed.restored(state, digest, len(data))
    assert hashed is None or hashed.digest() == digest
    try:
        restored = sha2.restore(algorithm, state)
    except InvalidState:
        return
    assert len(restored.hexdigest()) == len(digest.encoded)


def test_beyond_what_a_word_counts():
    """4 GiB of bits do not fit SHA-256's low word: the count goes over into the high one."""
    hasher = sha2.make("sha256")
    state = hasher.state()
    far = state[:32] + (1 << 33).to_bytes(8, "big")
    restored = sha2.restore("sha256", far)
    assert restored.count == 1 << 33
    assert restored.state() == far


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(InvalidDigest):
        sha2.make("md5")


def test_where_openssl_hides_its_functions_hashlib_does_it(monkeypatch):
    monkeypatch.setattr(sha2, "_library", lambda _: None)
    hashed = Hashed.nothing("sha256")
    hashed._update([b"abc"])
    assert hashed.digest() == Digest.of(b"abc")
    assert hashed.state() is None
    assert Hashed.restored(b"x" * 40, Digest.of(b""), 0) is None
