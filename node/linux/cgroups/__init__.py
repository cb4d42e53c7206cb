"""Control groups: limits on a container's processes, what they use, and the means to stop all of them.

`detect()` looks at how the host mounts its cgroup file systems and gives the manager for it: version 1 (also on hybrid
hosts, where version 1 holds the controllers) or version 2. Both take the runtime-spec object `linux.resources`
(config-linux.md) and answer the same Protocols (`store.py`), so that nothing above knows which one it talks to.
The room does not know containers: a group is a path like `seawall-1a2b/<id>`, relative to the hierarchies' roots.

Start reading at `store.py`, then `v1.py` and `v2.py`.
"""

from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.hierarchies import detect
from node.linux.cgroups.resources import InvalidResources

__all__ = ("CgroupError", "InvalidResources", "detect")
