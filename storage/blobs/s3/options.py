"""What one has to know to use a bucket. Without boto3: a program reads its settings before it knows whether it needs
one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

MIB = 1024 * 1024
SMALLEST_PART = 5 * MIB
"""S3's own floor for every part but the last."""

Checksum = Literal["md5", "crc32", "none"]
Encryption = Literal["", "AES256", "aws:kms"]
CHECKSUMS: tuple[str, ...] = get_args(Checksum)
ENCRYPTIONS: tuple[str, ...] = get_args(Encryption)


@dataclass(frozen=True, slots=True)
class S3Options:
    """Sizes in bytes, times in seconds.

    Without `access_key` the credentials come from where boto3 looks for them: environment, shared files, the role of
    the container or machine. `spool` is the folder in which each upload keeps the part that it gathers (None: the
    system's for temporary files). `threads` bound the requests that run at once, for writing and for reading each.
    `public_endpoint` is what clients are sent to, where they know the service by another name than we do.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    authorities: Path | None = None
    part_size: int = 8 * MIB
    checksum: Checksum = "md5"
    encryption: Encryption = ""
    encryption_key: str | None = None
    spool: Path | None = None
    threads: int = 24
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    attempts: int = 5
    public_endpoint: str | None = None
