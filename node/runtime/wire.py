"""Frames on the runtime's sockets: a 4-byte big-endian length, then JSON; and Docker's 8-byte stream frames.

The daemon's side (`node.containers.wire`) speaks the same without importing this, since the daemon never imports the
runtime.
"""

from __future__ import annotations

import json
import struct

MAX_FRAME = 8 * 1024 * 1024
STDIN, STDOUT, STDERR = 0, 1, 2


def frame(message: dict[str, object]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


def take(buffer: bytearray) -> dict[str, object] | None:
    """The next whole message of `buffer`, removed from it; None when there is none yet. Raises ValueError."""
    if len(buffer) < 4:
        return None
    (length,) = struct.unpack_from(">I", buffer)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    if len(buffer) < 4 + length:
        return None
    message = json.loads(buffer[4:4 + length])
    del buffer[:4 + length]
    if not isinstance(message, dict):
        raise ValueError("a frame is not an object")  # noqa: TRY004 -- what came is wrong, not what we called it with
    return message


def stream_frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexed form (Engine API, "Stream format"): stream, three zeros, big-endian length."""
    return struct.pack(">BxxxI", stream, len(data)) + data
