"""Image configurations and the chain of layers (OCI image-spec config.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument

MAX_BYTES = 8 * 1024 * 1024


class InvalidImage(InvalidArgument):
    """The bytes are no image configuration."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A parsed image configuration. `config` holds the raw `config` object (Env, Cmd, …); `document` the whole."""

    raw: bytes
    document: Mapping[str, Any]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    config: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes) -> "ImageConfig":
        """Raises InvalidImage or InvalidDigest."""
        try:
            document = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise InvalidImage(f"image configuration is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidImage("image configuration is not a JSON object")
        rootfs = document.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if diff_ids is None:
            diff_ids = []
        if not isinstance(diff_ids, list) or not all(isinstance(d, str) for d in diff_ids):
            raise InvalidImage("rootfs.diff_ids is not a list of digests")
        config = document.get("config") or {}
        if not isinstance(config, dict):
            raise InvalidImage("config is not an object")
        return cls(raw, document, Platform.from_json(document), tuple(map(Digest.parse, diff_ids)), config)

    @property
    def created(self) -> str:
        """RFC 3339, or empty."""
        value = self.document.get("created")
        return value if isinstance(value, str) else ""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        value = self.document.get("history")
        return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

    def chain_ids(self) -> tuple[Digest, ...]:
        """One a layer, bottom first: what a snapshot of this layer upon those below is called."""
        return chain_ids(self.diff_ids)


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """ChainID(L₀) = DiffID(L₀); ChainID(L₀|…|Lₙ) = SHA256(ChainID(L₀|…|Lₙ₋₁) + " " + DiffID(Lₙ)) (config.md)."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
