"""Which log a container's output goes to."""

from __future__ import annotations

from node.runtime.locallog import LocalLog
from node.runtime.logs import JsonLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    Log = JsonLog | LocalLog


def open_log(wanted: dict[str, object] | None) -> Log | None:
    """`wanted` as in a launch request: format (json or local), path, max_size, max_files, compress, attrs. Raises
    OSError."""
    if wanted is None:
        return None
    path, compress = str(wanted["path"]), bool(wanted["compress"])
    size, files = wanted["max_size"], wanted["max_files"]
    if not isinstance(size, int) or not isinstance(files, int):
        raise TypeError("a log's sizes are numbers")
    if wanted["format"] == "local":
        return LocalLog(path, size, files, compress=compress)
    return JsonLog(path, size, files, compress=compress, attrs=str(wanted["attrs"]))
