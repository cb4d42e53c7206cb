"""What each operation is to somebody with limited rights. An operation that is in no set needs full rights."""

READ = frozenset({
    "SystemPing", "SystemPingHead", "SystemVersion", "SystemInfo", "SystemEvents", "SystemDataUsage",
    "ContainerList", "ContainerInspect", "ContainerLogs", "ContainerTop", "ContainerStats", "ContainerChanges",
    "ContainerWait", "ExecInspect",
    "ImageList", "ImageInspect", "ImageHistory", "ImageSearch", "DistributionInspect",
    "NetworkList", "NetworkInspect", "VolumeList", "VolumeInspect", "SecretList", "SecretInspect", "ConfigList",
})  # fmt: skip
"""Of rights "read". Not the files of containers and images, which may hold secrets, nor what configs contain."""

OPEN = frozenset({
    "SystemPing", "SystemPingHead", "SystemVersion", "SystemInfo", "SystemAuth",
    "ImageList", "ImageInspect", "ImageHistory", "ImageSearch", "ImageCreate", "ImagePush", "DistributionInspect",
})  # fmt: skip
"""Of a project as of everybody. Images belong to the node: a project may pull and push, not name or delete them."""

NARROWED = frozenset({
    "SystemEvents", "ContainerList", "ContainerPrune", "NetworkList", "NetworkPrune", "VolumeList", "VolumePrune",
})  # fmt: skip
"""A project's are those that carry its label."""

OF_CONTAINER = frozenset({
    "ContainerInspect", "ContainerStart", "ContainerStop", "ContainerRestart", "ContainerKill", "ContainerPause",
    "ContainerUnpause", "ContainerRename", "ContainerUpdate", "ContainerDelete", "ContainerWait", "ContainerLogs",
    "ContainerAttach", "ContainerAttachWebsocket", "ContainerResize", "ContainerTop", "ContainerStats",
    "ContainerChanges", "ContainerExport", "ContainerArchiveInfo", "ContainerArchive", "PutContainerArchive",
    "ContainerExec",
})  # fmt: skip
OF_EXEC = frozenset({"ExecStart", "ExecResize", "ExecInspect"})
OF_NETWORK = frozenset({"NetworkInspect", "NetworkDelete", "NetworkConnect", "NetworkDisconnect"})
OF_VOLUME = frozenset({"VolumeInspect", "VolumeDelete"})
CREATES = frozenset({"ContainerCreate", "NetworkCreate", "VolumeCreate"})
PROJECT = OPEN | NARROWED | OF_CONTAINER | OF_EXEC | OF_NETWORK | OF_VOLUME | CREATES
