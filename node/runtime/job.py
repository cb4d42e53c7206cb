"""What a launcher gives to a new monitor."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from node.linux.cgroups.store import Cgroups
    from node.runtime.birth import Confinement
    from node.runtime.spec import Config


class Job:
    """All that a launcher gives to a new monitor. `host` is the host's mount namespace; `ports` are descriptors to hold
    for as long as the container lives; `runtime` is another OCI runtime's program, None: ours."""

    def __init__(self, request: dict[str, object], channel: socket.socket, ports: list[int], config: Config,
                 groups: Cgroups, confinement: Confinement, host: int) -> None:
        self.channel = channel
        self.ports = ports
        self.config = config
        self.groups = groups
        self.confinement = confinement
        self.host = host
        self.container_id = str(request["container_id"])
        self.bundle = str(request["bundle"])
        self.rootfs: list[dict[str, object]] = request["rootfs"]  # type: ignore[assignment]
        self.images: list[dict[str, object]] = request.get("images", [])  # type: ignore[assignment]
        self.files: list[dict[str, object]] = request.get("files", [])  # type: ignore[assignment]
        self.state_dir = str(request["state_dir"])
        self.log: dict[str, object] | None = request["log"]  # type: ignore[assignment]
        self.open_stdin = bool(request["open_stdin"])
        self.stdin_once = bool(request["stdin_once"])
        self.runtime: dict[str, object] | None = request.get("runtime")  # type: ignore[assignment]
