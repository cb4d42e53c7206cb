"""nftables through libnftables.so.1: a text in nft(8)'s language is one atomic transaction, without a process.

Starting `nft` costs more than the whole network of a container; it is the fallback where only the program is there.
"""

import ctypes
import ctypes.util
import shutil
import subprocess
import threading

LIBRARY = "libnftables.so.1"


class RulesRefused(OSError):
    """The kernel or libnftables refused the rules; the text is theirs."""


class Nftables:
    """Raises FileNotFoundError from the constructor when this host has neither the library nor the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._program = ""
        try:
            self._library = _load()
        except OSError:
            self._program = shutil.which("nft") or ""
            if not self._program:
                raise FileNotFoundError(
                    "neither libnftables.so.1 nor the nft program is installed (Debian: libnftables1)") from None
            return
        self._context = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_buffer_output(self._context)

    def close(self) -> None:
        """Give the library's memory and its socket back; the object is of no use afterwards."""
        if self._library is not None:
            self._library.nft_ctx_free(self._context)

    def run(self, rules: str) -> None:
        """One transaction: all of it or nothing. Raises RulesRefused. Blocks; safe from several threads."""
        with self._lock:
            error = self._run_library(rules) if self._library is not None else self._run_program(rules)
        if error is not None:
            raise RulesRefused(0, f"nftables refused the rules: {error}")

    def _run_library(self, rules: str) -> str | None:
        assert self._library is not None
        status = self._library.nft_run_cmd_from_buffer(self._context, rules.encode())
        text = self._library.nft_ctx_get_error_buffer(self._context) or b""
        return None if status == 0 else text.decode(errors="replace").strip() or "unknown error"

    def _run_program(self, rules: str) -> str | None:
        done = subprocess.run([self._program, "-f", "-"], input=rules, text=True, capture_output=True, check=False)
        return None if done.returncode == 0 else done.stderr.strip() or f"nft ended with {done.returncode}"


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
