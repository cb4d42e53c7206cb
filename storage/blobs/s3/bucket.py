"""One bucket: each of S3's operations that we use as one call off the event loop, with errors of ours.

The only module that knows boto3. Its client retries what may be retried (500, 503, slow-downs, timeouts, broken
connections) with back-off; every request of ours may be repeated, because no name is ever written with two contents.
"""

import errno
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ocispec.errors import NotFound, OutOfRange
from storage.blobs.s3.options import S3Options
from storage.blobs.s3.spool import Spool
from storage.blobs.store import StoreUnavailable
from storage.blobs.threads import Threads
from storage.errors import StoreFull

log = logging.getLogger(__name__)

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "404"})
FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"})
BEYOND = frozenset({"InvalidRange", "416"})


class ObjectMissing(NotFound):
    """No object, or no multipart upload, of this name."""


class Stream(Protocol):
    """The body of an answer, as boto3 gives it."""

    def read(self, amt: int | None = None) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    etag: str
    size: int
    crc32: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the bucket. `upload` is the id of a multipart upload that goes on, whose size is not told."""

    name: str
    size: int
    modified: datetime
    upload: str | None = None


class Bucket:
    """`open` it first. Names are without the prefix."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._prefix = f"{options.prefix.strip('/')}/" if options.prefix.strip("/") else ""
        self._where = {"Bucket": options.bucket}
        self._writing = Threads(options.threads, "s3-write", translated)
        self._reading = Threads(options.threads, "s3-read", translated)
        self._client: Any = None
        self._signer: Any = None

    async def open(self) -> None:
        """Raises StoreUnavailable when there is no such bucket, or it is not ours to use."""
        self._client = self._signer = await self._writing.run(_client, self._options)
        if self._options.public_endpoint:
            public = replace(self._options, endpoint=self._options.public_endpoint)
            self._signer = await self._writing.run(_client, public)
        try:
            await self._writing.run(self._client.head_bucket, **self._where)
        except ObjectMissing:
            raise StoreUnavailable(f"there is no bucket {self._options.bucket!r}") from None

    def close(self) -> None:
        for threads in (self._writing, self._reading):
            threads.close()
        if self._client is not None:
            self._client.close()

    async def put(self, name: str, spool: Spool) -> None:
        def put() -> None:
            self._client.put_object(**self._object(name), **self._encrypted(), **self._checksum(spool),
                                    Body=spool.body(), ContentLength=spool.size)

        await self._writing.run(put)

    async def size(self, name: str) -> int:
        """Raises ObjectMissing."""
        answer = await self._reading.run(self._client.head_object, **self._object(name))
        return int(answer["ContentLength"])

    async def get(self, name: str, start: int, end: int | None) -> tuple[Stream, int]:
        """The bytes from `start` up to `end`, and how many they are. Raises ObjectMissing, OutOfRange."""
        wanted = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}

        def get() -> tuple[Stream, int]:
            answer = self._client.get_object(**self._object(name), **wanted)
            return answer["Body"], int(answer["ContentLength"])

        return await self._reading.open(_close, get)

    async def pull(self, stream: Stream, most: int) -> bytes:
        """Nothing at the end. Raises StoreUnavailable when the stream breaks before it."""
        return await self._reading.run(stream.read, most)

    def drop(self, stream: Stream) -> None:
        self._reading.soon(stream.close)

    async def delete(self, name: str) -> None:
        await self._writing.run(self._client.delete_object, **self._object(name))

    async def begin(self, name: str) -> str:
        """A multipart upload; gives its id."""
        algorithm = {"ChecksumAlgorithm": "CRC32"} if self._options.checksum == "crc32" else {}
        answer = await self._writing.run(self._client.create_multipart_upload, **self._object(name),
                                         **self._encrypted(), **algorithm)
        return str(answer["UploadId"])

    async def part(self, name: str, upload: str, number: int, spool: Spool) -> Part:
        """Raises ObjectMissing when the upload was ended."""

        def send() -> Part:
            answer = self._client.upload_part(**self._object(name), UploadId=upload, PartNumber=number,
                                              Body=spool.body(), ContentLength=spool.size, **self._checksum(spool))
            return Part(number, answer["ETag"], spool.size, answer.get("ChecksumCRC32"))

        return await self._writing.run(send)

    async def copy_part(self, name: str, upload: str, number: int, source: str, start: int, length: int) -> Part:
        """Let the server take a part from `length` bytes of another object. Raises ObjectMissing."""
        answer = await self._writing.run(
            self._client.upload_part_copy, **self._object(name), UploadId=upload, PartNumber=number,
            CopySource={**self._object(source)}, CopySourceRange=f"bytes={start}-{start + length - 1}")
        result = answer["CopyPartResult"]
        return Part(number, result["ETag"], length, result.get("ChecksumCRC32"))

    async def parts(self, name: str, upload: str) -> list[Part]:
        """In order. Raises ObjectMissing when the upload was ended."""

        def collect() -> list[Part]:
            pages = self._client.get_paginator("list_parts").paginate(**self._object(name), UploadId=upload)
            return [Part(part["PartNumber"], part["ETag"], part["Size"], part.get("ChecksumCRC32"))
                    for page in pages for part in page.get("Parts", ())]

        return await self._writing.run(collect)

    async def complete(self, name: str, upload: str, parts: list[Part]) -> None:
        """Raises ObjectMissing when the upload was ended: perhaps by an earlier try whose answer was lost."""
        listed = [{"PartNumber": part.number, "ETag": part.etag, **_crc32(part)} for part in parts]
        await self._writing.run(self._client.complete_multipart_upload, **self._object(name), UploadId=upload,
                                MultipartUpload={"Parts": listed})

    async def abort(self, name: str, upload: str) -> None:
        """No error when it was ended before."""
        try:
            await self._writing.run(self._client.abort_multipart_upload, **self._object(name), UploadId=upload)
        except ObjectMissing:
            return

    async def objects(self, prefix: str) -> AsyncIterator[Found]:
        async for page in self._pages("list_objects_v2", prefix):
            for item in page.get("Contents", ()):
                yield Found(self._without_prefix(item["Key"]), item["Size"], item["LastModified"])

    async def uploads(self, prefix: str) -> AsyncIterator[Found]:
        """Multipart uploads that are not complete."""
        async for page in self._pages("list_multipart_uploads", prefix):
            for item in page.get("Uploads", ()):
                yield Found(self._without_prefix(item["Key"]), 0, item["Initiated"], item["UploadId"])

    async def url(self, name: str, expires: timedelta, content_type: str) -> str:
        """In a thread: signing may have to fetch the role's credentials first."""
        answered = {"ResponseContentType": content_type, "ResponseContentDisposition": "attachment"}
        url = await self._reading.run(
            self._signer.generate_presigned_url, "get_object", Params={**self._object(name), **answered},
            ExpiresIn=int(expires.total_seconds()))
        return str(url)

    async def _pages(self, operation: str, prefix: str) -> AsyncIterator[dict[str, Any]]:
        pages = iter(self._client.get_paginator(operation).paginate(**self._where, Prefix=self._prefix + prefix))
        while (page := await self._writing.run(next, pages, None)) is not None:
            yield page

    def _object(self, name: str) -> dict[str, str]:
        return {**self._where, "Key": self._prefix + name}

    def _without_prefix(self, name: str) -> str:
        return name.removeprefix(self._prefix)

    def _encrypted(self) -> dict[str, str]:
        if not self._options.encryption:
            return {}
        key = {"SSEKMSKeyId": self._options.encryption_key} if self._options.encryption_key else {}
        return {"ServerSideEncryption": self._options.encryption, **key}

    def _checksum(self, spool: Spool) -> dict[str, str]:
        """What the server is to check the bytes against."""
        if self._options.checksum == "md5":
            return {"ContentMD5": spool.md5()}
        return {"ChecksumCRC32": spool.crc32()} if self._options.checksum == "crc32" else {}


def _client(options: S3Options) -> Any:
    """Blocks: boto3 reads its description of S3, and perhaps files with credentials."""
    session = boto3.session.Session(
        aws_access_key_id=options.access_key, aws_secret_access_key=options.secret_key,
        aws_session_token=options.session_token, region_name=options.region)
    config = Config(
        signature_version="s3v4", s3={"addressing_style": "path" if options.path_style else "auto"},
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        connect_timeout=options.connect_timeout, read_timeout=options.read_timeout,
        max_pool_connections=2 * options.threads, tcp_keepalive=True,
        # We send the checksum that the settings name; botocore's own comes as a trailer, which older servers refuse.
        request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return session.client("s3", endpoint_url=options.endpoint, config=config,
                          verify=str(options.authorities) if options.authorities else None)


def _close(answer: tuple[Stream, int]) -> None:
    answer[0].close()


def _crc32(part: Part) -> dict[str, str]:
    return {"ChecksumCRC32": part.crc32} if part.crc32 else {}


@contextmanager
def translated() -> Iterator[None]:
    """What the caller is told names neither endpoint nor object: it may go to a client. The log has it."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "?"))
        if code in MISSING:
            raise ObjectMissing("no such object in the bucket") from error
        if code in BEYOND:
            raise OutOfRange("the range lies outside the object") from error
        log.warning("bucket: %s", error)
        if code in FULL:
            raise StoreFull(f"the bucket takes no more bytes ({code})") from error
        raise StoreUnavailable(f"the bucket refuses {error.operation_name} ({code})") from error
    except (BotoCoreError, HTTPError) as error:
        log.warning("bucket: %s", error)
        raise StoreUnavailable(f"the bucket does not answer ({type(error).__name__})") from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StoreFull("no space left to gather uploads in (s3.spool)") from error
        raise StoreUnavailable(f"cannot gather uploads: {error.strerror or error}") from error
