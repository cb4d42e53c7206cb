"""Credentials of registries, where Docker keeps them too: `auths` in config.json, or a docker-credential-* helper."""

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

from ocispec.errors import FailedPrecondition, InvalidArgument
from ocispec.reference import Reference

HUB = "https://index.docker.io/v1/"
HELPER_SECONDS = 60


class BrokenConfig(InvalidArgument):
    """config.json is not what it should be."""


class HelperFailed(FailedPrecondition):
    """A credential helper is missing or does not work."""


class AuthStore:
    """The config.json of one folder. Its file is private (0600) and replaced whole, never half written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "config.json"

    @classmethod
    def of_user(cls) -> "AuthStore":
        """$DOCKER_CONFIG, or ~/.docker."""
        folder = os.environ.get("DOCKER_CONFIG")
        return cls(Path(folder) if folder else Path.home() / ".docker")

    def header(self, host: str) -> dict[str, str]:
        """X-Registry-Auth for a registry; an empty object when nothing is known of it."""
        text = json.dumps(self.get(host) or {})
        return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}

    def get(self, host: str) -> dict[str, str] | None:
        key, document = _key(host), self._read()
        if helper := _helper(document, key):
            return _ask_helper(helper, key)
        entry = document.get("auths", {}).get(key)
        if not isinstance(entry, dict):
            return None
        return _decoded(entry, key)

    def put(self, host: str, username: str, password: str, token: str) -> str:
        """Where it went."""
        key, document = _key(host), self._read()
        if helper := _helper(document, key):
            secret = {"ServerURL": key, "Username": "<token>" if token else username, "Secret": token or password}
            _call_helper(helper, "store", json.dumps(secret))
            return f"credential helper {helper}"
        entry = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
        if token:
            entry = {"auth": base64.b64encode(f"{username}:".encode()).decode(), "identitytoken": token}
        self._write({**document, "auths": {**document.get("auths", {}), key: entry}})
        return str(self._path)

    def remove(self, host: str) -> bool:
        key, document = _key(host), self._read()
        if helper := _helper(document, key):
            _call_helper(helper, "erase", key)
        auths = document.get("auths", {})
        if key not in auths:
            return False
        self._write({**document, "auths": {name: entry for name, entry in auths.items() if name != key}})
        return True

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BrokenConfig(f"{self._path} cannot be read: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
            raise BrokenConfig(f"{self._path} is no object with auths")
        return document

    def _write(self, document: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A config.json that is a link (dotfiles in a repository) stays one: what it points to is replaced.
        path = self._path.resolve()
        descriptor, name = tempfile.mkstemp(prefix=".config.json-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(document, file, indent="\t")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


def registry_of(image: str) -> str:
    """The registry an image's name leads to."""
    return Reference.parse(image).domain


def _key(host: str) -> str:
    bare = host.removeprefix("https://").removeprefix("http://").rstrip("/")
    return HUB if bare in ("", "docker.io", "index.docker.io", "index.docker.io/v1", "registry-1.docker.io") else bare


def _decoded(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (ValueError, TypeError) as error:
            raise BrokenConfig(f"the stored credentials of {key} are not base64: log in again") from error
    found = {"username": username, "password": password.rstrip("\0"), "serveraddress": key}
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found


def _helper(document: Mapping[str, Any], key: str) -> str:
    helpers = document.get("credHelpers")
    named = helpers.get(key) if isinstance(helpers, dict) else None
    return str(named or document.get("credsStore") or "")


def _ask_helper(helper: str, key: str) -> dict[str, str] | None:
    answer = _call_helper(helper, "get", key, missing_ok=True)
    if answer is None:
        return None
    try:
        document = json.loads(answer)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise HelperFailed(f"docker-credential-{helper} answers with something else than credentials") from error
    if username == "<token>":
        return {"identitytoken": secret, "serveraddress": key}
    return {"username": username, "password": secret, "serveraddress": key}


def _call_helper(helper: str, verb: str, text: str, *, missing_ok: bool = False) -> str | None:
    program = which(f"docker-credential-{helper}") if "/" not in helper else None
    if program is None:
        raise HelperFailed(f"config.json names the credential helper {helper!r}, but docker-credential-{helper} is not "
                           "installed: install it, or remove credsStore/credHelpers from the file")
    try:
        result = subprocess.run([program, verb], input=text, capture_output=True, text=True, timeout=HELPER_SECONDS,
                                check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HelperFailed(f"docker-credential-{helper} {verb}: {error}") from error
    if result.returncode:
        reason = (result.stdout or result.stderr).strip()
        if missing_ok and "credentials not found" in reason:
            return None
        raise HelperFailed(f"docker-credential-{helper} {verb}: {reason}")
    return result.stdout
