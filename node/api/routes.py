"""Every operation of Docker's Engine API 1.51 on one screen; those without a handler are answered 501 by name."""

from dataclasses import dataclass

from node.api.archives import ArchiveRoutes
from node.api.build import BuildRoutes
from node.api.containers import ContainerRoutes
from node.api.dispatch import Route
from node.api.events import EventRoutes
from node.api.execs import ExecRoutes
from node.api.imagefiles import ImageFileRoutes
from node.api.images import ImageRoutes
from node.api.networks import NetworkRoutes
from node.api.observe import ObserveRoutes
from node.api.secrets import SecretRoutes
from node.api.stats import StatsRoutes
from node.api.system import SystemRoutes
from node.api.transfer import TransferRoutes
from node.api.usage import UsageRoutes
from node.api.volumes import VolumeRoutes
from node.api.websocket import WebsocketRoutes


@dataclass(frozen=True, slots=True)
class Groups:
    """The handlers, one object a group."""

    system: SystemRoutes
    usage: UsageRoutes
    events: EventRoutes
    containers: ContainerRoutes
    observe: ObserveRoutes
    stats: StatsRoutes
    websocket: WebsocketRoutes
    execs: ExecRoutes
    images: ImageRoutes
    transfer: TransferRoutes
    networks: NetworkRoutes
    volumes: VolumeRoutes
    archives: ArchiveRoutes
    imagefiles: ImageFileRoutes
    build: BuildRoutes
    secrets: SecretRoutes
    configs: SecretRoutes


def routes(on: Groups) -> list[Route]:
    return [
        Route("GET", "/_ping", "SystemPing", on.system.ping),
        Route("HEAD", "/_ping", "SystemPingHead", on.system.ping),
        Route("GET", "/version", "SystemVersion", on.system.version),
        Route("GET", "/info", "SystemInfo", on.system.info),
        Route("GET", "/events", "SystemEvents", on.events.stream),
        Route("GET", "/system/df", "SystemDataUsage", on.usage.disk_usage),
        Route("POST", "/auth", "SystemAuth", on.transfer.login),

        Route("GET", "/containers/json", "ContainerList", on.containers.list),
        Route("POST", "/containers/create", "ContainerCreate", on.containers.create),
        Route("POST", "/containers/prune", "ContainerPrune", on.containers.prune),
        Route("GET", "/containers/{id}/json", "ContainerInspect", on.containers.inspect),
        Route("POST", "/containers/{id}/start", "ContainerStart", on.containers.start),
        Route("POST", "/containers/{id}/stop", "ContainerStop", on.containers.stop),
        Route("POST", "/containers/{id}/restart", "ContainerRestart", on.containers.restart),
        Route("POST", "/containers/{id}/kill", "ContainerKill", on.containers.kill),
        Route("POST", "/containers/{id}/pause", "ContainerPause", on.containers.pause),
        Route("POST", "/containers/{id}/unpause", "ContainerUnpause", on.containers.unpause),
        Route("POST", "/containers/{id}/rename", "ContainerRename", on.containers.rename),
        Route("POST", "/containers/{id}/update", "ContainerUpdate", on.containers.update),
        Route("DELETE", "/containers/{id}", "ContainerDelete", on.containers.delete),
        Route("POST", "/containers/{id}/wait", "ContainerWait", on.observe.wait),
        Route("GET", "/containers/{id}/logs", "ContainerLogs", on.observe.logs),
        Route("POST", "/containers/{id}/attach", "ContainerAttach", on.observe.attach),
        Route("GET", "/containers/{id}/attach/ws", "ContainerAttachWebsocket", on.websocket.attach),
        Route("POST", "/containers/{id}/resize", "ContainerResize", on.observe.resize),
        Route("GET", "/containers/{id}/top", "ContainerTop", on.observe.top),
        Route("GET", "/containers/{id}/stats", "ContainerStats", on.stats.stats),
        Route("GET", "/containers/{id}/changes", "ContainerChanges", on.archives.changes),
        Route("GET", "/containers/{id}/export", "ContainerExport", on.archives.export),
        Route("HEAD", "/containers/{id}/archive", "ContainerArchiveInfo", on.archives.info),
        Route("GET", "/containers/{id}/archive", "ContainerArchive", on.archives.get),
        Route("PUT", "/containers/{id}/archive", "PutContainerArchive", on.archives.put),

        Route("GET", "/containers/{id}/checkpoints", "CheckpointList"),
        Route("POST", "/containers/{id}/checkpoints", "CheckpointCreate"),
        Route("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "CheckpointDelete"),

        Route("POST", "/containers/{id}/exec", "ContainerExec", on.execs.create),
        Route("POST", "/exec/{id}/start", "ExecStart", on.execs.start),
        Route("POST", "/exec/{id}/resize", "ExecResize", on.execs.resize),
        Route("GET", "/exec/{id}/json", "ExecInspect", on.execs.inspect),

        Route("GET", "/images/json", "ImageList", on.images.list),
        Route("POST", "/images/create", "ImageCreate", on.transfer.create),
        Route("GET", "/images/search", "ImageSearch", on.transfer.search),
        Route("POST", "/images/prune", "ImagePrune", on.images.prune),
        Route("POST", "/images/load", "ImageLoad", on.imagefiles.load),
        Route("GET", "/images/get", "ImageGetAll", on.imagefiles.save_all),
        Route("GET", "/images/{name...}/json", "ImageInspect", on.images.inspect),
        Route("GET", "/images/{name...}/history", "ImageHistory", on.images.history),
        Route("GET", "/images/{name...}/get", "ImageGet", on.imagefiles.save),
        Route("POST", "/images/{name...}/push", "ImagePush", on.transfer.push),
        Route("POST", "/images/{name...}/tag", "ImageTag", on.images.tag),
        Route("DELETE", "/images/{name...}", "ImageDelete", on.images.delete),
        Route("GET", "/distribution/{name...}/json", "DistributionInspect", on.transfer.distribution),
        Route("POST", "/commit", "ImageCommit", on.imagefiles.commit),
        Route("POST", "/build", "ImageBuild", on.build.build),
        Route("POST", "/build/prune", "BuildPrune", on.build.prune),
        Route("POST", "/session", "Session"),

        Route("GET", "/networks", "NetworkList", on.networks.list),
        Route("POST", "/networks/create", "NetworkCreate", on.networks.create),
        Route("POST", "/networks/prune", "NetworkPrune", on.networks.prune),
        Route("GET", "/networks/{id}", "NetworkInspect", on.networks.inspect),
        Route("DELETE", "/networks/{id}", "NetworkDelete", on.networks.delete),
        Route("POST", "/networks/{id}/connect", "NetworkConnect", on.networks.connect),
        Route("POST", "/networks/{id}/disconnect", "NetworkDisconnect", on.networks.disconnect),

        Route("GET", "/volumes", "VolumeList", on.volumes.list),
        Route("POST", "/volumes/create", "VolumeCreate", on.volumes.create),
        Route("POST", "/volumes/prune", "VolumePrune", on.volumes.prune),
        Route("GET", "/volumes/{name}", "VolumeInspect", on.volumes.inspect),
        Route("PUT", "/volumes/{name}", "VolumeUpdate", on.volumes.update),
        Route("DELETE", "/volumes/{name}", "VolumeDelete", on.volumes.delete),

        Route("GET", "/swarm", "SwarmInspect"),
        Route("POST", "/swarm/init", "SwarmInit"),
        Route("POST", "/swarm/join", "SwarmJoin"),
        Route("POST", "/swarm/leave", "SwarmLeave"),
        Route("POST", "/swarm/update", "SwarmUpdate"),
        Route("GET", "/swarm/unlockkey", "SwarmUnlockkey"),
        Route("POST", "/swarm/unlock", "SwarmUnlock"),
        Route("GET", "/nodes", "NodeList"),
        Route("GET", "/nodes/{id}", "NodeInspect"),
        Route("DELETE", "/nodes/{id}", "NodeDelete"),
        Route("POST", "/nodes/{id}/update", "NodeUpdate"),
        Route("GET", "/services", "ServiceList"),
        Route("POST", "/services/create", "ServiceCreate"),
        Route("GET", "/services/{id}", "ServiceInspect"),
        Route("DELETE", "/services/{id}", "ServiceDelete"),
        Route("POST", "/services/{id}/update", "ServiceUpdate"),
        Route("GET", "/services/{id}/logs", "ServiceLogs"),
        Route("GET", "/tasks", "TaskList"),
        Route("GET", "/tasks/{id}", "TaskInspect"),
        Route("GET", "/tasks/{id}/logs", "TaskLogs"),
        Route("GET", "/secrets", "SecretList", on.secrets.list),
        Route("POST", "/secrets/create", "SecretCreate", on.secrets.create),
        Route("GET", "/secrets/{id}", "SecretInspect", on.secrets.inspect),
        Route("DELETE", "/secrets/{id}", "SecretDelete", on.secrets.delete),
        Route("POST", "/secrets/{id}/update", "SecretUpdate", on.secrets.update),
        Route("GET", "/configs", "ConfigList", on.configs.list),
        Route("POST", "/configs/create", "ConfigCreate", on.configs.create),
        Route("GET", "/configs/{id}", "ConfigInspect", on.configs.inspect),
        Route("DELETE", "/configs/{id}", "ConfigDelete", on.configs.delete),
        Route("POST", "/configs/{id}/update", "ConfigUpdate", on.configs.update),

        Route("GET", "/plugins", "PluginList"),
        Route("GET", "/plugins/privileges", "GetPluginPrivileges"),
        Route("POST", "/plugins/pull", "PluginPull"),
        Route("POST", "/plugins/create", "PluginCreate"),
        Route("GET", "/plugins/{name...}/json", "PluginInspect"),
        Route("POST", "/plugins/{name...}/enable", "PluginEnable"),
        Route("POST", "/plugins/{name...}/disable", "PluginDisable"),
        Route("POST", "/plugins/{name...}/upgrade", "PluginUpgrade"),
        Route("POST", "/plugins/{name...}/push", "PluginPush"),
        Route("POST", "/plugins/{name...}/set", "PluginSet"),
        Route("DELETE", "/plugins/{name...}", "PluginDelete"),
    ]
