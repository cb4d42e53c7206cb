"""`seawall update`: limits, restart policy and labels of containers that exist."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from node.cli import options as parse
from node.cli.createbody import CPUS, SIZE
from node.cli.session import Session, each, session


@click.command()
@click.option("--blkio-weight", type=int, default=0, help="Share of block IO, 10 to 1000.")
@click.option("--cpu-period", type=int, default=0, help="CFS period in microseconds.")
@click.option("--cpu-quota", type=int, default=0, help="CFS quota in microseconds.")
@click.option("--cpu-rt-period", type=int, default=0, help="Real-time period in microseconds.")
@click.option("--cpu-rt-runtime", type=int, default=0, help="Real-time runtime in microseconds.")
@click.option("-c", "--cpu-shares", type=int, default=0, help="Relative CPU weight.")
@click.option("--cpus", type=CPUS, default="0", metavar="N", help="How many CPUs at most: 1.5")
@click.option("--cpuset-cpus", default="", metavar="LIST", help="Which CPUs: 0-2,4")
@click.option("--cpuset-mems", default="", metavar="LIST", help="Which memory nodes.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Set a label (beyond Docker).")
@click.option("--label-rm", multiple=True, metavar="KEY", help="Take a label away (beyond Docker).")
@click.option("-m", "--memory", type=SIZE, default="0", metavar="BYTES", help="Memory limit: 512m")
@click.option("--memory-reservation", type=SIZE, default="0", metavar="BYTES", help="Soft limit.")
@click.option("--memory-swap", type=SIZE, default="0", metavar="BYTES", help="Memory and swap; -1: no limit.")
@click.option("--pids-limit", type=int, help="How many processes at most; -1: no limit.")
@click.option("-p", "--publish", multiple=True, metavar="[[IP:]PORT:]PORT[/PROTOCOL]",
              help="Publish one more port (beyond Docker).")  # fmt: skip
@click.option("--publish-rm", multiple=True, metavar="PORT[/PROTOCOL]",
              help="Publish this port of the container no more (beyond Docker).")  # fmt: skip
@click.option("--restart", default="", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped.")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...")
@session
def update(session: Session, /, containers: Sequence[str], **flags: Any) -> int:
    """Change limits and restart policy of containers, also while they run."""
    body = {
        "BlkioWeight": flags["blkio_weight"],
        "CpuPeriod": flags["cpu_period"],
        "CpuQuota": flags["cpu_quota"],
        "CpuRealtimePeriod": flags["cpu_rt_period"],
        "CpuRealtimeRuntime": flags["cpu_rt_runtime"],
        "CpuShares": flags["cpu_shares"],
        "NanoCpus": flags["cpus"],
        "CpusetCpus": flags["cpuset_cpus"],
        "CpusetMems": flags["cpuset_mems"],
        "Memory": flags["memory"],
        "MemoryReservation": flags["memory_reservation"],
        "MemorySwap": flags["memory_swap"],
        "PidsLimit": flags["pids_limit"],
        "RestartPolicy": parse.restart(flags["restart"]) if flags["restart"] else None,
        "Labels": {**parse.pairs(flags["label"]), **dict.fromkeys(flags["label_rm"])},
    }
    body = {name: value for name, value in body.items() if value not in (None, "", {}, 0) or name == "PidsLimit"}

    def one(name: str) -> None:
        ports = _ports(session, name, flags) if flags["publish"] or flags["publish_rm"] else {}
        answer = session.client.json("POST", f"/containers/{name}/update", None, {**body, **ports})
        for warning in answer["Warnings"] or ():
            click.echo(f"WARNING: {warning}", err=True)

    return each(containers, one)


def _ports(session: Session, name: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """All bindings there will be: those of now, without the ones that go, and the new ones."""
    now = session.client.json("GET", f"/containers/{name}/json")["HostConfig"]["PortBindings"] or {}
    gone = {text if "/" in text else f"{text}/tcp" for text in flags["publish_rm"]}
    for port in gone:
        if port not in now:
            raise click.BadParameter(f"{port} of {name} is not published", param_hint="--publish-rm")
    bindings = {port: list(held) for port, held in now.items() if port not in gone}
    for port, added in parse.ports(flags["publish"]).items():
        bindings.setdefault(port, []).extend(added)
    return {"PortBindings": bindings}
