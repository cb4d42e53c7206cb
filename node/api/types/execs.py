"""An exec as its inspect shows it."""

from base64 import b64encode
from typing import Any

from node.api.detach import DetachKeys
from node.containers.model import Exec


def inspect(value: Exec) -> dict[str, Any]:
    spec = value.spec
    return {
        "ID": value.id,
        "Running": value.running,
        "ExitCode": value.exit_code,
        "ProcessConfig": {
            "tty": spec.tty,
            "entrypoint": spec.cmd[0],
            "arguments": list(spec.cmd[1:]),
            "privileged": spec.privileged,
            **({"user": spec.user} if spec.user else {}),
        },
        "OpenStdin": spec.attach_stdin,
        "OpenStderr": spec.attach_stderr,
        "OpenStdout": spec.attach_stdout,
        "CanRemove": value.exit_code is not None,
        "ContainerID": value.container_id,
        "DetachKeys": b64encode(DetachKeys.parse(spec.detach_keys).sequence if spec.detach_keys else b"").decode(),
        "Pid": value.pid,
    }
