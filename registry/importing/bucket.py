"""A source in a bucket. The keys are the paths a folder would have, without a leading slash."""

from collections.abc import Iterator
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from ocispec.errors import InvalidArgument, Unavailable
from registry.importing.journal import Class, Damaged
from registry.importing.tree import CHUNK, Absent, Content, Entry, Kind

ATTEMPTS = 5
"""How often a body that breaks off is asked for again, from where it broke."""

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
DENIED = frozenset({"AccessDenied", "403", "InvalidObjectState"})
TIMEOUT = 30


class BucketTree:
    """Tree. Credentials and region come from where boto3 looks for them."""

    def __init__(self, client: Any, bucket: str, prefix: str, page: int = 1000) -> None:
        self._page = page
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    @classmethod
    def connect(cls, url: str, endpoint: str | None) -> Self:
        """`s3://bucket/prefix`. Raises InvalidArgument and Unavailable."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise InvalidArgument(f"no bucket in {url!r} (want s3://bucket/prefix)")
        config = Config(retries={"mode": "standard", "max_attempts": ATTEMPTS}, connect_timeout=TIMEOUT,
                        read_timeout=TIMEOUT, s3={"addressing_style": "path" if endpoint else "auto"})
        try:
            client = boto3.client("s3", endpoint_url=endpoint, config=config)
            client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise Unavailable(f"cannot read {url}: {error}") from error
        return cls(client, bucket, prefix)

    def close(self) -> None:
        self._client.close()

    def list(self, path: str) -> list[Entry]:
        # With a delimiter a name that begins another (tags `v1` and `v1.0`) is its own entry.
        key = self._key(path)
        prefix = f"{key}/" if key else ""
        found: dict[str, Entry] = {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"PageSize": self._page})
        try:
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    name = item["Prefix"][len(prefix):].rstrip("/")
                    found[name] = Entry(name, Kind.FOLDER)
                for item in page.get("Contents", ()):
                    name = item["Key"][len(prefix):]
                    found.setdefault(name, Entry(name, Kind.FILE, item["Size"]))
        except (BotoCoreError, ClientError) as error:
            raise _failed(path, error) from error
        found.pop("", None)  # some tools make an object for a folder
        if not found:
            raise Absent(path)
        return sorted(found.values(), key=lambda entry: entry.name)

    def read(self, path: str, limit: int) -> Content:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(path))
            with answer["Body"] as body:
                return Content(body.read(limit), answer["ContentLength"], answer["LastModified"])
        except (BotoCoreError, ClientError, OSError) as error:
            raise _failed(path, error) from error

    def open(self, path: str) -> "RemoteFile":
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=self._key(path))
        except (BotoCoreError, ClientError) as error:
            raise _failed(path, error) from error
        return RemoteFile(self._client, self._bucket, self._key(path), path, answer)

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)


class RemoteFile:
    """OpenFile. A body that breaks off goes on from there, of the same object or not at all."""

    def __init__(self, client: Any, bucket: str, key: str, path: str, head: dict[str, Any]) -> None:
        self._client = client
        self._where = {"Bucket": bucket, "Key": key, "IfMatch": head["ETag"]}
        self._path = path
        self._size: int = head["ContentLength"]

    @property
    def size(self) -> int:
        return self._size

    @property
    def descriptor(self) -> None:
        return None

    def chunks(self) -> Iterator[bytes]:
        offset, failures = 0, 0
        while offset < self._size:
            failures += 1
            try:
                answer = self._client.get_object(**self._where, Range=f"bytes={offset}-")
                with answer["Body"] as body:
                    while data := body.read(CHUNK):
                        offset += len(data)
                        failures = 0
                        yield data
            except ClientError as error:
                raise _failed(self._path, error) from error
            except (BotoCoreError, HTTPClientError, OSError) as error:
                if failures >= ATTEMPTS:
                    raise _failed(self._path, error) from error
            if failures >= ATTEMPTS:
                raise Unavailable(f"the bucket gives {offset} bytes of {self._path}, which has {self._size}")

    def close(self) -> None:
        """Nothing is open between two chunks."""


def _failed(path: str, error: Exception) -> Exception:
    """What is wrong with one object is damage; a bucket that does not answer is none."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in ABSENT:
        return Absent(path)
    if code in DENIED:
        return Damaged(Class.UNREADABLE, path, str(error))
    return Unavailable(f"the bucket does not give {path}: {error}")
