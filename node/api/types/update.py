"""`POST /containers/{id}/update`: Docker's limits and restart policy, and beyond Docker `Labels` and `PortBindings`."""

from node.api.types.fields import Fields
from node.api.types.hostconfig import parse_bindings, parse_restart
from node.api.types.limits import parse_limits
from node.containers.changing import Change

_FIXED = ("Devices", "DeviceCgroupRules", "Ulimits", "CgroupParent", "OomKillDisable", "ShmSize", "Sysctls",
          "OomScoreAdj", "KernelMemoryTCP")  # fmt: skip
"""Of a container that runs these cannot change, and Docker passes them over in silence."""


def parse_update(body: Fields) -> Change:
    """Raises InvalidField, InvalidArgument, Unimplemented."""
    body.refuse(_FIXED)
    restart = body.object("RestartPolicy")
    return Change(
        parse_limits(body),
        body.optional_number("PidsLimit"),
        parse_restart(restart) if restart.text("Name") else None,
        body.optional_mapping("Labels"),
        tuple(parse_bindings(body)) if body.has("PortBindings") else None,
    )
