"""Signatures of what is sent, as the Standard Webhooks specification has them: receivers find libraries that verify
them, and `docs/webhooks.md` shows how to do it by hand."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime

PREFIX = "whsec_"


def signed(secret: str, identity: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The headers: HMAC-SHA256 over `id.timestamp.body`. The time is in it so that a receiver can refuse old messages
    that somebody else sends again. Without a secret there is no signature, and the id and time are still told."""
    seconds = str(int(at.timestamp()))
    headers = {"webhook-id": identity, "webhook-timestamp": seconds}
    if secret:
        content = f"{identity}.{seconds}.".encode() + body
        made = hmac.new(_key(secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(made).decode()}"
    return headers


def _key(secret: str) -> bytes:
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass  # a secret that merely begins like that
    return secret.encode()
