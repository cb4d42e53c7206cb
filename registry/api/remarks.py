"""`Warning` headers: what a client should hear although its request was done (distribution-spec, "Warnings")."""

from collections.abc import Sequence

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.manifest import Manifest

MAX_BYTES = 4096
"""Of one header with its code and quotes; the spec's limit."""

FRAME = len('299 - ""')
NAMED = 3


def header(text: str) -> str:
    """The value of one header: ASCII, quoted, cut to what the spec allows."""
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in text)
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')[: MAX_BYTES - FRAME]
    ending = len(quoted) - len(quoted.rstrip("\\"))
    return f'299 - "{quoted[:-1] if ending % 2 else quoted}"'


def of_push(manifest: Manifest, absent: Sequence[Digest]) -> list[str]:
    """What is to be said of a manifest that was taken though the repository lacks what is `absent`."""
    said = []
    subject = manifest.subject.digest if manifest.subject else None
    lacking = [digest for digest in absent if digest != subject]
    if lacking:
        named = ", ".join(map(str, lacking[:NAMED])) + (", ..." if len(lacking) > NAMED else "")
        said.append(f"taken without {len(lacking)} of its parts: {named}")
    if subject in absent:
        said.append(f"its subject {subject} is not in this repository")
    old = next((layer for layer in manifest.layers if mediatype.is_nondistributable(layer.media_type)), None)
    if old is not None:
        said.append(f"layers of type {old.media_type} are deprecated; their bytes are not kept here")
    return [header(text) for text in said]
