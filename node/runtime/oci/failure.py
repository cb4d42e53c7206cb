"""How a call fails, and where it says so: standard error, and the log that the caller named, in runc's two formats."""

from __future__ import annotations

import os
import sys
import time

from node.runtime import jsontext

FAILED = 1
NOT_RUN = 255
"""Exit status of `run` and `exec` when the process could not be started: its own statuses are below."""


class Failure(Exception):
    """What went wrong, in words for whoever called; `status` is the exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Journal:
    """`path` "" is standard error; `style` is text or json, as logrus writes them."""

    def __init__(self, path: str = "", style: str = "text", *, debug: bool = False) -> None:
        self._path = path
        self._style = style
        self._debug = debug

    def error(self, text: str) -> None:
        """Also to standard error, for the person who reads no log."""
        self._write("error", text)
        if self._path:
            _to_stderr(text + "\n")

    def warning(self, text: str) -> None:
        """Only into a log: standard error may be the container's."""
        if self._path or self._debug:
            self._write("warning", text)

    def debug(self, text: str) -> None:
        if self._debug:
            self._write("debug", text)

    def _write(self, level: str, text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._style == "json":
            line = jsontext.dumps({"level": level, "msg": text, "time": now})
        else:
            line = f"time={jsontext.dumps(now)} level={level} msg={jsontext.dumps(text)}"
        if not self._path:
            _to_stderr(line + "\n")
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            _to_stderr(f"{self._path}: {error.strerror}\n{line}\n")
            return
        os.write(fd, line.encode(errors="replace") + b"\n")
        os.close(fd)


def _to_stderr(text: str) -> None:
    try:
        os.write(2, text.encode(errors="replace"))
    except OSError:
        sys.stderr = None  # nobody hears us, and nothing shall be tried at the exit


def reason(error: BaseException) -> str:
    """An exception's own words."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
