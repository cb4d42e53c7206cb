"""Secrets and configs over HTTP."""

import base64
import json
from typing import Any

import pytest

from tests.node.api.conftest import Node


def body(name: str = "x", data: bytes = b"data", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Data": base64.b64encode(data).decode(), **more}


@pytest.mark.parametrize("kind", ["secret", "config"])
async def test_a_life(node: Node, kind: str) -> None:
    status, made = await node.call("POST", f"/{kind}s/create", body(Labels={"a": "b"}))
    assert status == 201
    status, answer = await node.call("POST", f"/{kind}s/create", body())
    assert (status, answer["message"]) == (409, f"rpc error: code = AlreadyExists desc = {kind} x already exists")
    _, found = await node.call("GET", f"/{kind}s/x")
    assert found["ID"] == made["ID"]
    assert found["Spec"].get("Data") == (None if kind == "secret" else "ZGF0YQ==")
    update = f"/{kind}s/{made['ID']}/update"
    assert (await node.call("POST", f"{update}?version=1", {"Name": "x", "Labels": {"c": "d"}}))[0] == 200
    assert (await node.call("POST", f"{update}?version=1", {"Name": "x"}))[0] == 409
    assert (await node.call("POST", update, {"Name": "x"}))[0] == 400
    for changed in (body(data=b"other"), {"Name": "y"}):
        status, answer = await node.call("POST", f"{update}?version=2", changed)
        assert (status, "only updates to Labels are allowed" in answer["message"]) == (400, True)
    for filters, count in (({"label": ["c=d"]}, 1), ({"label": ["a"]}, 0), ({"name": ["x"]}, 1), ({"names": ["xx"]}, 0),
                           ({"id": [made["ID"][:5]]}, 1)):  # fmt: skip
        assert len((await node.call("GET", f"/{kind}s", params={"filters": json.dumps(filters)}))[1]) == count
    assert (await node.call("GET", f"/{kind}s", params={"filters": '{"bad":["x"]}'}))[0] == 400
    node.containers.secret_used = made["ID"]
    status, answer = await node.call("DELETE", f"/{kind}s/x")
    assert (status, "is in use by the following container: box" in answer["message"]) == (400, True)
    node.containers.secret_used = ""
    assert (await node.call("DELETE", f"/{kind}s/x"))[0] == 204
    assert (await node.call("GET", f"/{kind}s/x"))[0] == 404
    assert [event.action for event in node.bus.past() if event.type == kind] == ["create", "update", "remove"]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 400), (body(name="-"), 400), (body(data=b""), 400), ({"Name": "x", "Data": "!"}, 400),
        ({"Name": "x", "Data": 3}, 400), (body(Labels=[]), 400), (body(Driver={"Name": "vault"}), 501),
        (body(Templating={"Name": "golang"}), 501),
    ],
)  # fmt: skip
async def test_what_cannot_be(node: Node, wrong: dict[str, Any], status: int) -> None:
    assert (await node.call("POST", "/secrets/create", wrong))[0] == status
    assert (await node.call("GET", "/secrets"))[1] == []
