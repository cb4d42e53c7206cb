"""The words of this room: what may be asked for (CreateSpec, ExecSpec) and what a container is (Container).

All values are parsed and validated where they enter (`node.api.types`, or the `parse` methods here, which raise
InvalidArgument in Docker's words). Nothing here does anything. JSON for state.db is made by `codec.py`: keep to
str, int, bool, tuples, mappings of str to str, enums and dataclasses of these.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.containers.mountspec import MountSpec
from node.network.model import Endpoint, EndpointSpec

ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Docker prints for a moment that has not come."""

NO_STRINGS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port inside a container."""

    number: int
    protocol: str = "tcp"
    """tcp, udp or sctp."""

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """A container port that the host answers for. As asked: host_ip may be "" (all) and host_port 0 (any free)."""

    port: Port
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0
    """Of a range, of which the first free one is taken; 0: none."""


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    """As in getrlimit(2) without RLIMIT_, lower case: nofile, nproc…"""

    soft: int
    """-1: unlimited."""

    hard: int


@dataclass(frozen=True, slots=True)
class Device:
    host_path: str
    container_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class DeviceWeight:
    """A device's share of block IO: `path` names it on the host, 10 to 1000."""

    path: str
    weight: int


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """Bytes or operations a second that a device of the host, named by `path`, does for the container at most."""

    path: str
    rate: int


class RestartMode(enum.StrEnum):
    NO = "no"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"
    ON_FAILURE = "on-failure"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    mode: RestartMode = RestartMode.NO
    max_retries: int = 0
    """Of on-failure; 0: no bound."""


@dataclass(frozen=True, slots=True)
class LogSpec:
    driver: str = "json-file"
    """A name of `logdrivers.OPTIONS`; empty in what is asked for: the node's default."""

    options: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    """As given."""

    max_size: int | None = None
    """Bytes, in records of before 0.4, which held the option parsed. The option wins."""

    max_files: int | None = None


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Durations are nanoseconds and 0 means Docker's default, as on the wire."""

    test: tuple[str, ...] = ()
    """("NONE",) · ("CMD", arg…) · ("CMD-SHELL", line) · () for the image's."""

    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits; 0 or "" means none. Bytes, and CPU times in microseconds except nano_cpus (10⁹ = one CPU)."""

    memory: int = 0
    memory_swap: int = 0
    """Memory and swap together; 0: twice `memory`; -1: unlimited swap."""

    memory_reservation: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    """≤ 0: none; in what is asked for 0 is the node's own default, and -1 none."""

    blkio_weight: int = 0
    blkio_weights: tuple[DeviceWeight, ...] = ()
    read_bps: tuple[DeviceRate, ...] = ()
    write_bps: tuple[DeviceRate, ...] = ()
    read_iops: tuple[DeviceRate, ...] = ()
    write_iops: tuple[DeviceRate, ...] = ()
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    kernel_memory_tcp: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    """`c 1:3 rwm`, as in Docker."""

    hugepages: Mapping[str, int] = field(default_factory=dict)
    """Bytes by page size as the kernel writes it (2MB)."""

    shm_size: int = 64 * 1024 * 1024
    sysctls: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)


@dataclass(frozen=True, slots=True)
class Security:
    cap_add: tuple[str, ...] = ()
    """Upper case with or without CAP_, or ALL."""

    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    """As given: no-new-privileges[=bool], seccomp=unconfined|JSON, … (`bundle/security.py` parses them)."""

    read_only_rootfs: bool = False
    group_add: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    """None: the default list; empty: nothing is masked."""

    readonly_paths: tuple[str, ...] | None = None
    isolation: str = ""
    """Whose defaults hold (`bundle/baseline.py`): seawall or docker. In what is asked for empty: the node's; in a
    record: those of before there was a choice."""

    older_calls: bool = False
    """The default seccomp profile lets 32-bit programs in, for the image is one and was asked for as such."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Each: "" or "private" (own) or "host"; pid, ipc also container:<id>; ipc also none, shareable."""

    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    mode: str = "default"
    """default, none, host, container:<name or id> or the name of a network: bridge, or one of the user's."""

    bindings: tuple[PublishedPort, ...] = ()
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """NAME:IP, or NAME:host-gateway."""

    mac_address: str = ""
    """Of the first network."""

    endpoints: tuple[EndpointSpec, ...] = ()
    """What is asked of each network; the one that `mode` names first."""

    links: tuple[str, ...] = ()
    """Of `--link` on the default bridge: CONTAINER:ALIAS."""


@dataclass(frozen=True, slots=True)
class CreateSpec:
    """What `docker create` can say. None or empty means: as the image says."""

    image: str
    """As the user wrote it."""

    name: str = ""
    """Without the leading slash; empty: a name is made up."""

    platform: str = ""
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    """() or ("",): none, whatever the image says (and the image's command goes with it)."""

    env: tuple[str, ...] = ()
    """K=V; a bare K removes the image's K."""

    workdir: str = ""
    user: str = ""
    """user[:group], names or numbers."""

    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    exposed_ports: tuple[Port, ...] = ()
    volumes: tuple[str, ...] = ()
    """Paths that get an anonymous volume each (`-v /data`, VOLUME)."""

    stop_signal: str = ""
    """Name or number; empty: SIGTERM."""

    stop_timeout: int | None = None
    """Seconds before SIGKILL; None: 10; -1: wait for ever."""

    healthcheck: Healthcheck | None = None
    mounts: tuple[MountSpec, ...] = ()
    """Of Binds and Mounts alike; MountSpec.from_bind tells which."""

    tmpfs: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    """Path to mount options, of `--tmpfs`."""

    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    namespaces: Namespaces = field(default_factory=Namespaces)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    log: LogSpec = field(default_factory=LogSpec)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    init: bool = False
    cgroup_parent: str = ""
    """A cgroup from the hierarchies' roots, made if need be; empty: the node's."""

    runtime: str = ""
    """As named by the client; all names that are taken mean this node's own."""

    annotations: Mapping[str, str] = field(default_factory=lambda: NO_STRINGS)
    console_size: tuple[int, int] = (0, 0)
    """Height, width of the client's terminal at create."""

    shell: tuple[str, ...] = ()
    """Before the line of a CMD-SHELL health check; empty: /bin/sh -c."""


@dataclass(frozen=True, slots=True)
class Created:
    id: str
    warnings: tuple[str, ...]


class Status(enum.StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class HealthResult:
    start: str
    end: str
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """Of a container with a healthcheck: starting, healthy or unhealthy; the last five results, oldest first."""

    status: str
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerState:
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO_TIME
    """RFC 3339 with nanoseconds, as finished_at."""

    finished_at: str = ZERO_TIME
    restart_count: int = 0
    stopped_by_user: bool = False
    """A stop or kill was asked for: `unless-stopped` does not start it again."""

    health: Health | None = None

    @property
    def running(self) -> bool:
        """Docker counts a paused container as running."""
        return self.status in (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount as the container has it; volumes have been made, sources are absolute host paths."""

    kind: str
    """bind, volume, tmpfs, image, secret or config."""

    target: str
    source: str = ""
    name: str = ""
    """Of a volume."""

    read_only: bool = False
    mode: str = ""
    propagation: str = ""
    options: tuple[str, ...] = ()
    anonymous: bool = False
    """Made for this container; goes with it under `rm -v` and `--rm`."""

    recursive: bool = True
    copy_up: bool = False
    """A volume that takes over what the image holds at `target` when it is still empty."""

    create_source: bool = False
    """Of a bind: a missing folder of the host is made at each start."""

    read_only_below: bool = True
    """Of a read-only mount: what is mounted below is read-only too."""

    subpath: str = ""
    idmap: str = ""
    reference: str = ""
    """Of an image, secret or config: its id. What lies at `source` exists in the monitor's mount namespace alone."""

    owner: tuple[int, int] = (0, 0)
    file_mode: int = 0o444


@dataclass(frozen=True, slots=True)
class Place:
    """A container's place on its networks while it runs."""

    endpoints: tuple[Endpoint, ...] = ()
    """The one with the default route first."""

    ports: tuple[PublishedPort, ...] = ()
    """As resolved: host_port is never 0, host_ip never empty."""

    @property
    def primary(self) -> Endpoint:
        """Where the default route leads; an empty one where there is none."""
        return next(iter(self.endpoints), Endpoint())


@dataclass(frozen=True, slots=True)
class Container:
    """A container at one moment. `spec` is complete: the image's defaults have been merged in at create."""

    id: str
    """64 hex digits."""

    name: str
    created: str
    image: str
    """As named at create."""

    image_id: str
    """sha256:…"""

    spec: CreateSpec
    path: str
    """The first word of entrypoint + cmd; `args` the others."""

    args: tuple[str, ...]
    mounts: tuple[MountPoint, ...] = ()
    state: ContainerState = field(default_factory=ContainerState)
    network: Place = field(default_factory=Place)
    wanted: tuple[EndpointSpec, ...] | None = None
    """What it is connected to, running or not; None: as its spec says."""

    directory: str = ""
    """Host folder of hostname, hosts, resolv.conf and the log."""

    log_path: str = ""
    """Empty when the driver is none."""

    exec_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecSpec:
    cmd: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Exec:
    """An exec at one moment; it stays known until its container is removed."""

    id: str
    container_id: str
    spec: ExecSpec
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`docker logs`. Times are nanoseconds since the epoch; 0: no bound."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    """Each line begins with what the driver's labels, env and tag say."""

    tail: int | None = None
    """Lines; None: all."""

    since: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True)
class Processes:
    """`docker top`."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
