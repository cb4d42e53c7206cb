"""The three files every container gets bound over its /etc: hostname, hosts, resolv.conf."""

from collections.abc import Sequence
from pathlib import Path

from node.containers.model import Container, CreateSpec, NetworkSpec
from node.network.listening import ADDRESS as DNS_ADDRESS
from node.network.model import Endpoint, Resolving, Sandbox

HOST_RESOLV = Path("/etc/resolv.conf")
HOST_HOSTS = Path("/etc/hosts")
UPSTREAM_RESOLV = Path("/run/systemd/resolve/resolv.conf")
"""systemd-resolved(8) keeps the servers of the network here, when /etc/resolv.conf names only itself (127.0.0.53)."""

HOST_GATEWAY = "host-gateway"
LARGEST = 1024 * 1024
"""Bytes that are read of one. Containers write to theirs what they like, holes of terabytes as well."""


def write(container: Container, sandbox: Sandbox, joined: Path | None = None, linked: str = "") -> None:
    """Into the container's folder; at each start, because the address is that start's.

    `joined`: the folder of the container whose network this one shares. Names mean there what they mean here.
    `linked`: lines of /etc/hosts for containers it is linked to.
    """
    directory = Path(container.directory)
    (directory / "hostname").write_text(f"{container.spec.hostname}\n")
    if joined is not None:
        for name in ("hosts", "resolv.conf"):
            (directory / name).write_text(_read(joined / name))
        return
    (directory / "hosts").write_text(_hosts(container, sandbox, linked))
    (directory / "resolv.conf").write_text(_resolv_of(container.spec.network, sandbox.endpoints))


def rewrite_resolv(container: Container, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> None:
    """The container goes on with other networks. What somebody else has written into the file stays."""
    file = Path(container.directory) / "resolv.conf"
    if any(end.named for end in before) == any(end.named for end in after):
        return
    if _read(file) == _resolv_of(container.spec.network, before):
        # Into the same file: the container has it by a bind mount.
        with file.open("r+") as opened:
            opened.write(_resolv_of(container.spec.network, after))
            opened.truncate()


def resolving(asked: NetworkSpec) -> Resolving:
    """Whom the container's DNS asks for others' names."""
    servers = tuple(server for server in asked.dns if server != DNS_ADDRESS)
    return Resolving(servers, any(_ndots(option) > 0 for option in asked.dns_options))


def _ndots(option: str) -> int:
    name, _, number = option.partition(":")
    return int(number) if name == "ndots" and number.isascii() and number.isdigit() else 0


def _resolv_of(asked: NetworkSpec, endpoints: Sequence[Endpoint]) -> str:
    if any(end.named for end in endpoints):
        return _named_conf(_read(HOST_RESOLV), asked)
    own = any(end.ip or end.ip6 for end in endpoints)
    return resolv_conf(_host_resolver() if own else _read(HOST_RESOLV), asked, own_namespace=own)


def _named_conf(host: str, asked: NetworkSpec) -> str:
    """Questions go to the node (node.keeper), which asks the host's servers or those of `--dns`. `ndots:0`, as Docker
    has it: a container's name is asked for as it stands first."""
    lines = resolv_conf(host, asked, own_namespace=False).splitlines()
    text = f"nameserver {DNS_ADDRESS}\n" + "".join(f"{line}\n" for line in lines if line.startswith("search "))
    options = next((line.split()[1:] for line in lines if line.startswith("options ")), [])
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    return text + f"options {' '.join(options)}\n"


def _host_resolver() -> str:
    """What the host asks. Where that is a resolver of its own, which no container reaches, what that one asks."""
    text = _read(HOST_RESOLV)
    return text if any(reachable(server) for server in _servers(text)) else _read(UPSTREAM_RESOLV) or text


def _hosts(container: Container, sandbox: Sandbox, linked: str) -> str:
    spec = container.spec
    if sandbox.netns_path is None:
        text = _read(HOST_HOSTS)
        text += "" if text.endswith("\n") else "\n"
        gateway = "127.0.0.1"
    else:
        text = ("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
                "ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
        gateway = sandbox.endpoint.gateway if sandbox.endpoint else "127.0.0.1"
    for entry in spec.network.extra_hosts:
        name, _, address = entry.partition(":")
        text += f"{gateway if address == HOST_GATEWAY else address}\t{name}\n"
    return text + linked + "".join(_own(spec, end) for end in sandbox.endpoints)


def _own(spec: CreateSpec, end: Endpoint) -> str:
    full = f"{spec.hostname}.{spec.domainname} " if spec.domainname else ""
    return "".join(f"{ip}\t{full}{spec.hostname}\n" for ip in (end.ip, end.ip6) if ip)


def add_host(directory: Path, spec: CreateSpec, end: Endpoint) -> None:
    """A network more for a running container, which sees this very file: it is written in place."""
    with (directory / "hosts").open("a") as file:
        file.write(_own(spec, end))


def drop_host(directory: Path, end: Endpoint) -> None:
    """One less. What the container wrote itself stays."""
    file, gone = directory / "hosts", {end.ip, end.ip6} - {""}
    text = _read(file)
    if len(text.encode()) >= LARGEST:
        return  # no hosts file any more: the container's own affair
    lines = text.splitlines(keepends=True)
    file.write_text("".join(line for line in lines if (line.split() or [""])[0] not in gone))


def resolv_conf(host: str, asked: NetworkSpec, *, own_namespace: bool) -> str:
    """The host's, with what the user asked for in its place; nameservers that the container could not reach are left
    out (resolv.conf(5))."""
    lines = _lines(host)
    servers = _servers(host)
    if own_namespace:
        servers = [server for server in servers if reachable(server)]
    search = next((words[1:] for words in reversed(lines) if words[0] in ("search", "domain")), [])
    options = [option for words in lines if words[0] == "options" for option in words[1:]]
    servers = list(asked.dns) or servers
    search = [name for name in asked.dns_search if name != "."] if asked.dns_search else search
    options = list(asked.dns_options) or options
    text = "".join(f"nameserver {server}\n" for server in servers)
    text += f"search {' '.join(search)}\n" if search else ""
    return text + (f"options {' '.join(options)}\n" if options else "")


def reachable(server: str) -> bool:
    """Whether a container on the bridge can ask it: not on the host's loopback, and not over IPv6."""
    return not server.startswith("127.") and ":" not in server


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]


def _servers(text: str) -> list[str]:
    return [words[1] for words in _lines(text) if words[0] == "nameserver" and len(words) > 1]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode(errors="replace")
    except OSError:
        return ""
