"""Every parser that meets bytes of strangers, for a fuzzer: `python tests/fuzz/targets.py [NAME ...] [-runs=N]`.

A target takes bytes and may refuse them only with InvalidArgument or OutOfRange; whatever else comes out of it is a
bug, and so is what its assertions say. Options with one dash are libFuzzer's: -max_total_time=600 for ten minutes,
-artifact_prefix=DIR/ for where a crash is written. A folder is the corpus: it is given the seeds below, and grows.
"""

import base64
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import atheris
from joserfc.jwk import OKPKey

with atheris.instrument_imports(include=["ocispec", "registry.api", "registry.auth"]):
    from ocispec import manifest as manifests
    from ocispec.descriptor import Platform
    from ocispec.digest import ALGORITHMS, Digest
    from ocispec.errors import InvalidArgument, OutOfRange
    from ocispec.image import ImageConfig
    from ocispec.reference import Reference, RepositoryName, Tag, parse_tag_or_digest, referrers_tag
    from registry.api import paths, ranges, remarks
    from registry.auth.keyring import ALGORITHM
    from registry.auth.patterns import Pattern
    from registry.auth.tokens import InvalidToken, Tokens

REFUSED = (InvalidArgument, OutOfRange)
LATIN = "latin-1"  # what aiohttp makes of a head's bytes: one character each


def digest(data: bytes) -> None:
    text = data.decode(LATIN)
    parsed = Digest.parse(text)
    assert str(parsed) == text
    assert parsed.algorithm in ALGORITHMS
    assert Tag.parse(str(referrers_tag(parsed)))


def name(data: bytes) -> None:
    text = data.decode(errors="replace")
    parsed = RepositoryName.parse(text)
    assert str(parsed) == text
    assert ".." not in text
    assert not text.startswith(("/", "_", "."))
    assert text.isascii()
    assert text.isprintable()


def reference(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(InvalidArgument):
        parse_tag_or_digest(text)
    parsed = Reference.parse(text)
    assert Reference.parse(str(parsed)) == parsed
    Reference.parse(parsed.familiar())


def manifest(data: bytes) -> None:
    content_type, _, raw = data.partition(b"\n")
    parsed = manifests.parse(raw, content_type.decode(LATIN))
    assert parsed.raw == raw
    json.dumps(parsed.descriptor(parsed.digest()).to_json())
    for header in remarks.of_push(parsed, [part.digest for part in (*parsed.blobs, *parsed.children)]):
        assert header.isascii()
        assert header.isprintable()


def config(data: bytes) -> None:
    ImageConfig.parse(data)


def platform(data: bytes) -> None:
    parsed = Platform.parse(data.decode(LATIN))
    assert Platform.parse(str(parsed)) == parsed


def path(data: bytes) -> None:
    found = paths.parse(data.decode(LATIN))
    assert found is None or isinstance(found, paths.Target)


def byte_range(data: bytes) -> None:
    size = int.from_bytes(data[:2], "big")
    part = ranges.wanted(data[2:].decode(LATIN), size)
    assert part is None or 0 <= part.start <= part.end < size


def content_range(data: bytes) -> None:
    place = ranges.chunk(data.decode(LATIN))
    assert place is None or (place.start >= 0 and place.length > 0)


class OneKey:
    """A keyring with a key that nobody else has."""

    def __init__(self) -> None:
        self._key = OKPKey.generate_key("Ed25519")

    async def refresh(self) -> None:
        pass

    def checking(self, _kid: str) -> OKPKey:
        return self._key


TOKENS = Tokens(OneKey(), "seawall", "seawall", timedelta(minutes=5), lambda: datetime(2026, 1, 1, tzinfo=UTC))


def token(data: bytes) -> None:
    checking = TOKENS.verify(data.decode(LATIN))
    with contextlib.suppress(InvalidToken):
        checking.send(None)
    checking.close()


def pattern(data: bytes) -> None:
    text = data.decode(errors="replace")
    parsed = Pattern.parse(text)
    assert Pattern.parse(str(parsed)) == parsed
    parsed.matches(RepositoryName("a" * 100 + "/b"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "digest": digest, "name": name, "reference": reference, "manifest": manifest, "config": config,
    "platform": platform, "token": token, "pattern": pattern, "path": path, "byte_range": byte_range, "content_range": content_range,
}

SEEDS = {
    "digest": [f"sha256:{'a' * 64}", f"sha512:{'0' * 128}"], "name": ["library/alpine", "a-b/c_d/e.f"],
    "reference": ["alpine", "localhost:5000/a/b:v1", f"quay.io/x@sha256:{'a' * 64}"],
    "manifest": ["application/vnd.oci.image.manifest.v1+json\n" + json.dumps({
        "schemaVersion": 2, "config": {"mediaType": "a/b", "digest": f"sha256:{'a' * 64}", "size": 1}, "layers": [],
        "subject": {"mediaType": "a/b", "digest": f"sha256:{'b' * 64}", "size": 2}, "annotations": {"a": "b"}}),
        '\n{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'],
    "config": ['{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'],
    "platform": ["linux/amd64", "linux/arm/v7", "arm64"], "path": ["/v2/a/blobs/uploads/", "/v2/a%2Fb/tags/list"],
    "token": [".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (
        json.dumps({"alg": ALGORITHM, "kid": "k1"}).encode(), b"{}", b"x" * 64))],
    "pattern": ["**", "team/**", "a-*/b?"],
    "byte_range": ["\x01\x00bytes=0-9", "\x00\x10bytes=-5", "\x00\x10bytes=5-"],
    "content_range": ["0-9", "bytes 0-9/100"],
}


def pick(names: list[str]) -> Callable[[bytes], None]:
    """All of `names` in one: the first byte says which."""

    def one(data: bytes) -> None:
        if data:
            with contextlib.suppress(*REFUSED):
                TARGETS[names[data[0] % len(names)]](data[1:])

    return one


def main() -> None:
    names = [argument for argument in sys.argv[1:] if argument in TARGETS] or list(TARGETS)
    run = pick(names)
    folder = next((Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()), None)
    for number, target in enumerate(names):
        for seed in SEEDS[target]:
            data = bytes([number]) + seed.encode(LATIN)
            if folder is not None:
                (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
    atheris.Setup([sys.argv[0], *(argument for argument in sys.argv[1:] if argument not in TARGETS)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
