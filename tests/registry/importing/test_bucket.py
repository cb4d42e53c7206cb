"""A source in a bucket, on a real S3 server where there is one."""

import io
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.response import StreamingBody

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.errors import Unavailable
from registry.importing.bucket import BucketTree, RemoteFile
from registry.importing.journal import Class, Damaged
from tests import s3


@pytest.fixture
def upload(s3_server, monkeypatch):
    """`upload(store)`: its files as objects; gives what to import."""
    for name, value in (("ACCESS_KEY_ID", s3.ACCESS), ("SECRET_ACCESS_KEY", s3.SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = s3_server.client()

    def put(store, prefix: str = "") -> dict[str, str]:
        prefix = prefix or f"a registry/{uuid.uuid4().hex}"
        for path in Path(store.folder).rglob("*"):
            if path.is_file():
                client.put_object(Bucket=s3.BUCKET, Key=f"{prefix}/{path.relative_to(store.folder)}",
                                  Body=path.read_bytes())
        return {"source": f"s3://{s3.BUCKET}/{prefix}", "endpoint": s3_server.endpoint}

    yield put
    client.close()


def test_names_that_begin_others_and_more_than_a_page(distribution, take, upload, monkeypatch):
    monkeypatch.setattr(BucketTree.__init__, "__defaults__", (3,))
    wanted = {}
    for repo in ("app", "app-2", "app/x", "app2", "ap"):
        wanted[repo] = {tag: str(distribution.image(tag, layers=(repo.encode() + tag.encode(),), repo=repo))
                        for tag in ("v1", "v1.0", "v1-rc", "v10", "v")}
    result = take(distribution, **upload(distribution))
    assert result.entries == []
    assert result.holding() == wanted
    assert result.counts.repositories == 5


def test_damage_is_told_as_in_a_folder(distribution, take, upload):
    good = distribution.image("good")
    distribution.image("bad", layers=(b"bad",))
    distribution.data(Digest.of(b"bad")).write_bytes(b"other")
    distribution.image("empty", layers=(b"empty",))
    distribution.data(Digest.of(b"empty")).write_bytes(b"")
    distribution.image("gone", layers=(b"gone",))
    distribution.data(Digest.of(b"gone")).unlink()
    distribution.layer_link(Digest.of(b"layer")).write_bytes(b"")
    result = take(distribution, **upload(distribution))
    assert result.damage == sorted([
        *[("incomplete-manifest", "lost"), ("lost-tag", "lost")] * 3, ("wrong-digest", "lost"),
        ("empty-blob", "lost"), ("missing-blob", "lost"), ("bad-link", "healed")])
    assert result.holding() == {"team/app": {"good": str(good)}}


def test_stubs_of_zot(zot, take, upload):
    first = zot.image("v1", layers=(b"shared",), repo="a")
    second = zot.image("v1", layers=(b"shared",), repo="b", kind=mediatype.DOCKER_MANIFEST)
    zot.data(Digest.of(b"shared"), "b").write_bytes(b"")
    result = take(zot, **upload(zot))
    assert result.entries == []
    assert result.holding() == {"a": {"v1": str(first)}, "b": {"v1": str(second)}}


def test_a_bucket_that_is_none(distribution, take, upload, s3_server):
    upload(distribution)
    for source in ("s3://no-such-bucket/x", f"s3://{s3.BUCKET}/nothing/here"):
        with pytest.raises((Unavailable, Exception), match="cannot read|nothing to import"):
            take(distribution, source=source, endpoint=s3_server.endpoint)


class Breaking:
    """A client whose bodies break off, each after `after` bytes."""

    def __init__(self, data: bytes, after: int, code: str = "") -> None:
        self.data, self.after, self.code, self.asked = data, after, code, []

    def get_object(self, *, Bucket, Key, IfMatch, Range):  # noqa: N803
        self.asked.append(Range)
        if self.code and len(self.asked) > 1:
            raise ClientError({"Error": {"Code": self.code}}, "GetObject")
        start = int(Range.removeprefix("bytes=").removesuffix("-"))
        whole = len(self.data) - start
        if self.after == 0:
            raise ConnectionClosedError(endpoint_url="http://bucket")
        return {"Body": StreamingBody(io.BytesIO(self.data[start:start + self.after]), whole)}


def remote(client: Breaking) -> RemoteFile:
    return RemoteFile(client, "bucket", "key", "path", {"ETag": '"x"', "ContentLength": len(client.data),
                                                         "LastModified": datetime.now(UTC)})


def test_a_body_that_breaks_off_goes_on_from_there():
    client = Breaking(bytes(range(256)) * 40, 4000)
    assert b"".join(remote(client).chunks()) == client.data
    assert client.asked == ["bytes=0-", "bytes=4000-", "bytes=8000-"]


def test_a_body_that_never_comes_ends_the_import():
    with pytest.raises(Unavailable, match="does not give path"):
        list(remote(Breaking(b"data", 0)).chunks())


def test_an_object_that_goes_meanwhile_is_damage_and_another_in_its_place_is_none_of_it():
    with pytest.raises(Damaged) as gone:
        list(remote(Breaking(b"x" * 100, 10, "NoSuchKey")).chunks())
    assert gone.value.kind is Class.MISSING_BLOB
    with pytest.raises(Unavailable):
        list(remote(Breaking(b"x" * 100, 10, "PreconditionFailed")).chunks())
