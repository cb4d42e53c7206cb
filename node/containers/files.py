"""The three files every container gets bound over its /etc: hostname, hosts, resolv.conf."""

from pathlib import Path

from node.containers.model import Container, NetworkSpec
from node.network.model import Sandbox

HOST_RESOLV = Path("/etc/resolv.conf")
HOST_HOSTS = Path("/etc/hosts")
LOOPBACK = ("127.", "::1")
HOST_GATEWAY = "host-gateway"


def write(container: Container, sandbox: Sandbox) -> None:
    """Into the container's folder; at each start, because the address is that start's."""
    directory = Path(container.directory)
    own = sandbox.endpoint is not None
    (directory / "hostname").write_text(f"{container.spec.hostname}\n")
    (directory / "hosts").write_text(_hosts(container, sandbox))
    host = _read(HOST_RESOLV)
    (directory / "resolv.conf").write_text(resolv_conf(host, container.spec.network, own_namespace=own))


def _hosts(container: Container, sandbox: Sandbox) -> str:
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
    if sandbox.endpoint is not None:
        full = f"{spec.hostname}.{spec.domainname} " if spec.domainname else ""
        text += f"{sandbox.endpoint.ip}\t{full}{spec.hostname}\n"
    return text


def resolv_conf(host: str, asked: NetworkSpec, *, own_namespace: bool) -> str:
    """The host's, with what the user asked for in its place; nameservers on the host's loopback are left out where
    the container could not reach them (resolv.conf(5))."""
    lines = [line.split() for line in host.splitlines() if line.strip() and line.strip()[0] not in "#;"]
    servers = [words[1] for words in lines if words[0] == "nameserver" and len(words) > 1]
    if own_namespace:
        servers = [server for server in servers if not server.startswith(LOOPBACK)]
    search = next((words[1:] for words in reversed(lines) if words[0] in ("search", "domain")), [])
    options = [option for words in lines if words[0] == "options" for option in words[1:]]
    servers = list(asked.dns) or servers
    search = [name for name in asked.dns_search if name != "."] if asked.dns_search else search
    options = list(asked.dns_options) or options
    text = "".join(f"nameserver {server}\n" for server in servers)
    text += f"search {' '.join(search)}\n" if search else ""
    return text + (f"options {' '.join(options)}\n" if options else "")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
