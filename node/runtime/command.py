"""Finding the program to execute, as the container's user, and saying why not in the words users know from runc."""

from __future__ import annotations

import errno
import os
import stat

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotExecute(Exception):
    """`kind` is not-found (exit 127), permission or is-directory (126), or other."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def find(name: str, env: dict[str, str]) -> str:
    """The path to execute. Raises CannotExecute."""
    if "/" in name:
        _check(name)
        return name
    if name:
        for folder in env.get("PATH", DEFAULT_PATH).split(":"):
            candidate = f"{folder or '.'}/{name}"
            try:
                _check(candidate)
            except CannotExecute:
                continue
            return candidate
    raise CannotExecute("not-found", f'exec: "{name}": executable file not found in $PATH')


def _check(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        kind = "permission" if error.errno == errno.EACCES else "not-found"
        text = (os.strerror(error.errno or 0)).lower()
        raise CannotExecute(kind, f'exec: "{path}": stat {path}: {text}') from error
    if stat.S_ISDIR(status.st_mode):
        raise CannotExecute("is-directory", f'exec: "{path}": is a directory')
    if not os.access(path, os.X_OK):
        raise CannotExecute("permission", f'exec: "{path}": permission denied')


def failed(path: str, error: OSError) -> CannotExecute:
    """What execve(2) itself refused: a missing interpreter, a wrong format, a noexec mount."""
    kinds = {errno.ENOENT: "not-found", errno.EACCES: "permission", errno.ENOEXEC: "permission"}
    return CannotExecute(kinds.get(error.errno or 0, "other"),
                         f"exec {path}: {os.strerror(error.errno or 0).lower()}")
