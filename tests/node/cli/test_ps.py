"""What `ps` makes of a container's ports."""

import pytest

from node.cli.ps import ports_text


def port(private: int, public: int = 0, ip: str = "0.0.0.0", kind: str = "tcp") -> dict[str, object]:
    return {"PrivatePort": private, "Type": kind, **({"IP": ip, "PublicPort": public} if public else {})}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(83)], "80-81/tcp, 83/tcp"),
        ([port(80, 8080), port(81, 8081)], "0.0.0.0:8080-8081->80-81/tcp"),
        ([port(80, 8080), port(81, 9000)], "0.0.0.0:8080->80/tcp, 0.0.0.0:9000->81/tcp"),
        ([port(80, 8080), port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(53, 53, kind="udp"), port(53, 53), port(54)], "0.0.0.0:53->53/tcp, 0.0.0.0:53->53/udp, 54/tcp"),
    ],
)
def test_ports(ports: list[dict[str, object]], text: str) -> None:
    assert ports_text(ports) == text
