"""What may go wrong with an upload session besides a wrong digest and a full disk."""

from ocispec.errors import FailedPrecondition, NotFound, OutOfRange


class UploadUnknown(NotFound):
    """No such session in this repository: never begun, over, expired, or begun in another."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"upload {upload_id[:64]!r} is unknown to this repository", detail={"upload": upload_id[:64]})


class UploadBusy(FailedPrecondition):
    """Another request is writing this session now."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"upload {upload_id} is being written by another request", detail={"upload": upload_id})


class OffsetMismatch(OutOfRange):
    """A chunk does not begin where the session ends. `offset` is where it ends, in bytes."""

    def __init__(self, expected: int, given: int) -> None:
        super().__init__(f"chunk begins at {given}, the upload is at {expected}", detail={"offset": expected})
        self.offset = expected
