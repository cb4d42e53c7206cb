"""Which registries a build sends logins for."""

import pytest

from node.cli.build import _hosts


@pytest.mark.parametrize(("text", "hosts"), [
    ("FROM a.example/base\n", {"a.example"}),
    ("FROM --platform=$BUILDPLATFORM a.example/base AS x\nFROM scratch\nCOPY --from=x / /\n", {"a.example"}),
    ("ARG FROM=b.example/c\nFROM $FROM:$TARGETARCH\nCOPY --from=d.example/e / /\n", {"b.example", "d.example"}),
    ("FROM a.example/unneeded\nFROM b.example/c\n", {"b.example"}),
])  # fmt: skip
def test_hosts(text: str, hosts: set[str]) -> None:
    assert _hosts(text.encode(), {"build_args": (), "target": None}) == hosts
