"""Images, pulls, pushes, login, search, networks, volumes, events and the daemon itself over HTTP."""

import asyncio
import base64
import json
from urllib.parse import quote

import pytest

from node.api.progress import bar
from node.api.types.auth import InvalidAuth, parse_header, registry_host
from node.api.types.usage import Kind, sums
from node.events import Event
from storage.remote.auth import Credentials
from tests.conftest import Until
from tests.node.api.conftest import Node
from tests.node.api.test_streams import make


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


async def pull(node: Node, query: str, **headers: str) -> tuple[int, str, str]:
    async with node.http.post(f"http://node/v1.51/images/create?{query}", headers=headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_pull_is_a_stream_of_lines(node: Node) -> None:
    status, kind, text = await pull(node, "fromImage=127.0.0.1:5000/team/web&tag=1.0")
    assert (status, kind) == (200, "application/json")
    assert text.endswith("\r\n")
    said = lines(text)
    assert said[0] == {"status": "Pulling from team/web", "id": "1.0"}
    assert said[1] == {"status": "Pulling fs layer", "progressDetail": {}, "id": "abcdef012345"}
    assert said[2]["progressDetail"] == {"current": 512, "total": 1024}
    assert said[-1]["status"] == "Status: Downloaded newer image for 127.0.0.1:5000/team/web:1.0"


async def test_lines_come_as_they_happen(node: Node) -> None:
    node.images.pull_may_end.clear()
    async with node.http.post("http://node/images/create?fromImage=a&tag=b") as answer:
        first = await asyncio.wait_for(answer.content.readline(), 5)
        assert json.loads(first)["status"] == "Pulling from library/a"
        node.images.pull_may_end.set()
        assert b"Downloaded newer image" in await answer.read()


async def test_a_failure_before_the_first_line_has_its_own_status(node: Node) -> None:
    status, _, text = await pull(node, "fromImage=unreachable:5000/x&tag=latest")
    assert status == 503
    assert json.loads(text) == {"message": 'Get "http://unreachable:5000/v2/": connect: connection refused'}


async def test_a_later_failure_is_the_last_line(node: Node) -> None:
    status, _, text = await pull(node, "fromImage=broken&tag=latest")
    assert status == 200
    assert lines(text)[-1] == {"errorDetail": {"message": "the connection broke"}, "error": "the connection broke"}


async def test_a_pull_ends_when_its_client_goes(node: Node, until: Until) -> None:
    node.images.pull_may_end.clear()
    line = await node.dial()
    line.send(b"POST /images/create?fromImage=a&tag=b HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n")
    await line.head()
    line.close()
    await until(lambda: node.images.pulls_cancelled)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("fromImage=UPPER&tag=x", 400, "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("", 400, "fromImage must name an image"),
        ("fromImage=a&tag=b&platform=linux/a/b/c", 400, "invalid platform: 'linux/a/b/c'"),
    ],
)
async def test_refused_pulls(node: Node, query: str, status: int, message: str) -> None:
    got, _, text = await pull(node, query)
    assert got == status
    assert message in json.loads(text)["message"]


def header(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


async def test_credentials_go_to_the_pull(node: Node) -> None:
    auth = header({"username": "u", "password": "p", "serveraddress": "x"})
    await pull(node, "fromImage=a&tag=b", **{"X-Registry-Auth": auth})
    assert node.images.credentials == [Credentials("u", "p")]


@pytest.mark.parametrize("value", ["", header({}), header(None), "e30"])
def test_no_credentials(value: str) -> None:
    assert parse_header(value) is None


def test_credentials_of_all_kinds() -> None:
    assert parse_header(header({"identitytoken": "t"})) == Credentials(identity_token="t")
    assert parse_header(header({"registrytoken": "t"})) == Credentials(registry_token="t")
    packed = base64.b64encode(b"u:p:q").decode()
    assert parse_header(header({"auth": packed})) == Credentials("u", "p:q")
    assert parse_header(header({"username": "u", "password": "p"}).rstrip("=")) == Credentials("u", "p")


@pytest.mark.parametrize("value", ["%%%", header([1]), header({"auth": "!"}), "AAAA", header({"auth": "dQ=="})])
def test_broken_credentials(value: str) -> None:
    with pytest.raises(InvalidAuth):
        parse_header(value)


@pytest.mark.parametrize(
    ("address", "host"),
    [("https://index.docker.io/v1/", "docker.io"), ("", "docker.io"), ("127.0.0.1:5000", "127.0.0.1:5000"),
     ("http://reg:80/v2/", "reg:80"), ("https://ghcr.io", "ghcr.io")],
)  # fmt: skip
def test_registry_hosts(address: str, host: str) -> None:
    assert registry_host(address) == host


async def test_login(node: Node) -> None:
    body = {"username": "u", "password": "right", "serveraddress": "127.0.0.1:5000"}
    assert await node.call("POST", "/auth", body) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
    status, answer = await node.call("POST", "/auth", {**body, "password": "wrong"})
    assert (status, answer["message"]) == (401, "unauthorized: incorrect username or password")
    assert (await node.call("POST", "/auth", {}))[0] == 400


async def test_push_one_and_all_tags(node: Node) -> None:
    async with node.http.post("http://node/images/busybox/push?tag=latest") as answer:
        said = lines(await answer.text())
    assert said[-1] == {
        "progressDetail": {}, "aux": {"Tag": "latest", "Digest": f"sha256:{'c' * 64}", "Size": 527},
    }  # fmt: skip
    await node.call("POST", "/images/busybox/tag?repo=busybox&tag=other")
    async with node.http.post("http://node/images/busybox/push") as answer:
        tags = [line["aux"]["Tag"] for line in lines(await answer.text()) if "aux" in line]  # type: ignore[index]
    assert tags == ["latest", "other"]
    async with node.http.post("http://node/images/nothere/push") as answer:
        assert answer.status == 404
        assert (await answer.json())["message"] == "An image does not exist locally with the tag: nothere"


@pytest.mark.parametrize("version", ["v1.24", "v1.41", "v1.43", "v1.44", "v1.45", "v1.50", "v1.51"])
async def test_image_fields_by_version(node: Node, version: str) -> None:
    number = int(version.partition(".")[2])
    _, document = await node.call("GET", f"/{version}/images/busybox/json")
    assert ("VirtualSize" in document) == (number < 44)
    assert ("ContainerConfig" in document) == (number < 45)
    assert ("Hostname" in document["Config"]) == (number < 50)
    assert document["Config"]["Cmd"] == ["sh"]
    assert document["RootFS"]["Type"] == "layers"
    _, (line,) = await node.call("GET", f"/{version}/images/json")
    assert line["Containers"] == (0 if number >= 51 else -1)
    assert ("VirtualSize" in line) == (number < 44)


async def test_image_verbs(node: Node) -> None:
    assert (await node.call("POST", "/images/busybox/tag?repo=127.0.0.1:5000/x&tag=1"))[0] == 201
    assert (await node.call("POST", "/images/busybox/tag?repo=UP"))[0] == 400
    assert (await node.call("POST", "/images/busybox/tag"))[0] == 400
    (line,) = (await node.call("GET", "/images/json"))[1]
    assert line["RepoTags"] == ["busybox:latest", "127.0.0.1:5000/x:1"]
    assert (await node.call("GET", "/images/busybox/history"))[1][0]["CreatedBy"] == "COPY / /"
    assert (await node.call("GET", "/images/nothere/json"))[0] == 404
    status, removed = await node.call("DELETE", "/images/busybox")
    assert status == 200
    assert removed[0] == {"Untagged": "busybox:latest"}


@pytest.mark.parametrize(
    ("filters", "count"),
    [({"reference": ["busybox"]}, 1), ({"reference": ["busy*"]}, 1), ({"reference": ["busybox:1*"]}, 0),
     ({"reference": ["docker.io/library/busybox"]}, 1), ({"dangling": ["true"]}, 0), ({"dangling": ["false"]}, 1),
     ({"label": ["made-by"]}, 1), ({"label": ["made-by=test"]}, 1), ({"label": ["made-by=x"]}, 0),
     ({"label!": ["made-by"]}, 0), ({"before": ["busybox"]}, 0), ({"until": ["2026-11-21T00:00:00Z"]}, 1)],
)  # fmt: skip
async def test_image_filters(node: Node, filters: dict[str, list[str]], count: int) -> None:
    _, found = await node.call("GET", "/images/json", params={"filters": json.dumps(filters)})
    assert len(found) == count


async def test_a_reference_filter_shows_only_the_names_that_match(node: Node) -> None:
    await node.call("POST", "/images/busybox/tag?repo=other&tag=1")
    _, (line,) = await node.call("GET", "/images/json", params={"filters": '{"reference":["other"]}'})
    assert line["RepoTags"] == ["other:1"]


async def test_wrong_image_filters(node: Node) -> None:
    for filters in ('{"x":["y"]}', '{"dangling":["perhaps"]}'):
        assert (await node.call("GET", "/images/json", params={"filters": filters}))[0] == 400


async def test_search(node: Node) -> None:
    status, found = await node.call("GET", "/images/search?term=127.0.0.1:5000/web&limit=5")
    assert status == 200
    assert node.searches.asked == [("127.0.0.1:5000", "web", 5)]
    assert found[0] == {
        "star_count": 3, "is_official": False, "name": "127.0.0.1:5000/team/web", "is_automated": False,
        "description": "a web server",
    }  # fmt: skip
    status, body = await node.call("GET", "/images/search?term=web")
    assert status == 409
    assert body["message"].startswith("no registry to search for 'web': name one")
    assert (await node.call("GET", "/images/search"))[0] == 400
    assert (await node.call("GET", "/images/search?term=a&limit=101"))[0] == 400
    _, found = await node.call("GET", "/images/search", params={"term": "h:1/w", "filters": '{"stars":["3"]}'})
    assert len(found) == 1


async def test_networks(node: Node) -> None:
    _, found = await node.call("GET", "/networks")
    assert [network["Name"] for network in found] == ["bridge", "host", "none"]
    assert found[0]["IPAM"]["Config"] == [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]
    _, found = await node.call("GET", "/networks", params={"filters": '{"driver":["bridge"]}'})
    assert len(found) == 1
    assert (await node.call("GET", "/networks/bridge"))[1]["Driver"] == "bridge"
    assert (await node.call("GET", "/networks/nothere"))[0] == 404
    status, made = await node.call("POST", "/networks/create", {"Name": "x", "Labels": {"a": "b"}})
    assert (status, made["Warning"]) == (201, "")
    assert (await node.call("POST", "/networks/create", {"Name": "x"}))[0] == 409
    assert (await node.call("POST", "/networks/create", {"Name": "bridge"}))[0] == 403
    assert (await node.call("POST", "/networks/create", {"Name": "y", "Driver": "overlay"}))[0] == 503
    assert (await node.call("POST", "/networks/create", {"Name": "y", "Driver": "none"}))[0] == 404
    for filters in ('{"label":["a=b"]}', '{"type":["custom"]}', '{"dangling":["true"]}', '{"name":["^x$"]}'):
        _, found = await node.call("GET", "/networks", params={"filters": filters})
        assert [network["Name"] for network in found] == ["x"], filters
    assert (await node.call("GET", "/networks", params={"filters": '{"type":["odd"]}'}))[0] == 400
    assert (await node.call("POST", "/networks/none/connect", {"Container": "nothere"}))[0] == 404
    assert (await node.call("POST", "/networks/prune"))[1] == {"NetworksDeleted": ["x"]}
    assert (await node.call("DELETE", "/networks/bridge"))[0] == 403
    assert (await node.call("DELETE", "/networks/x"))[0] == 404


async def test_volumes(node: Node) -> None:
    status, made = await node.call("POST", "/volumes/create", {"Name": "v", "Labels": {"a": "b"}})
    assert status == 201
    assert made["Name"] == "v"
    assert (await node.call("POST", "/volumes/create", {"Driver": "nfs"}))[0] == 404
    assert (await node.call("PUT", "/volumes/v", {}))[0] == 503
    _, listed = await node.call("GET", "/volumes", params={"filters": '{"label":["a=b"],"dangling":["true"]}'})
    assert [volume["Name"] for volume in listed["Volumes"]] == ["v"]
    assert (await node.call("GET", "/volumes/v"))[1]["Mountpoint"] == "/volumes/v/_data"
    assert (await node.call("DELETE", "/volumes/v"))[0] == 204
    assert (await node.call("GET", "/volumes/v"))[0] == 404


async def test_info_and_usage(node: Node) -> None:
    await make(node, "sleep")
    _, info = await node.call("GET", "/info")
    assert (info["Containers"], info["ContainersStopped"], info["Images"]) == (1, 1, 1)
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"] == ["127.0.0.0/8"]
    _, version = await node.call("GET", "/version")
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    _, usage = await node.call("GET", "/system/df")
    assert usage["LayersSize"] == 1234567 + 5000
    assert [one["SizeRw"] for one in usage["Containers"]] == [1000 + await node.containers.size("x")]
    assert usage["BuilderSize"] == 1000
    await node.call("POST", "/volumes/create", {"Name": "v"})
    _, usage = await node.call("GET", "/system/df?type=volume")
    assert set(usage) == {"Volumes"}
    assert usage["Volumes"][0]["UsageData"] == {"RefCount": 0, "Size": 42}


async def test_usage_says_what_is_active(node: Node) -> None:
    assert (await node.call("GET", "/system/df?type=image"))[1]["Images"][0]["Containers"] == 0
    await make(node, "sleep")
    assert (await node.call("GET", "/v1.24/system/df?type=image"))[1]["Images"][0]["Containers"] == 1
    status, answer = await node.call("GET", "/system/df?type=nothing")
    assert (status, answer["message"]) == (400, "unknown object type: nothing")


def test_usage_since_1_52() -> None:
    kinds = [Kind("image", [{"Id": "x"}], 1, 30, 10), Kind("volume", [])]
    assert sums(kinds, verbose=False) == {
        "ImageUsage": {"ActiveCount": 1, "TotalCount": 1, "Reclaimable": 10, "TotalSize": 30},
        "VolumeUsage": {"ActiveCount": 0, "TotalCount": 0, "Reclaimable": 0, "TotalSize": 0},
    }
    assert sums(kinds, verbose=True)["ImageUsage"]["Items"] == [{"Id": "x"}]


async def test_every_tag_is_pulled_when_none_is_named(node: Node) -> None:
    status, _, text = await pull(node, "fromImage=127.0.0.1:5000/many")
    assert status == 200
    assert [line["id"] for line in lines(text) if str(line["status"]).startswith("Pulling from")] == ["1", "2"]


async def test_manifests_and_platforms(node: Node) -> None:
    _, (line,) = await node.call("GET", "/images/json?manifests=1&shared-size=1")
    assert [(one["Kind"], one["Available"]) for one in line["Manifests"]] == [
        ("image", True), ("image", False), ("attestation", False)]  # fmt: skip
    assert line["Manifests"][0]["ImageData"]["Platform"] == {"os": "linux", "architecture": "amd64"}
    assert line["SharedSize"] == 0
    _, (line,) = await node.call("GET", "/v1.46/images/json?manifests=1")
    assert "Manifests" not in line
    assert "Descriptor" not in line
    arm = quote('{"os": "linux", "architecture": "arm64"}')
    status, answer = await node.call("GET", f"/images/busybox/json?platform={arm}")
    assert (status, answer["message"]) == (
        404, "image with reference busybox was found but does not provide the specified platform (linux/arm64)")
    assert (await node.call("GET", f"/images/busybox/history?platform={arm}"))[0] == 404
    assert (await node.call("GET", "/images/busybox/json?manifests=1"))[1]["Manifests"][0]["Available"]
    assert (await node.call("GET", f"/images/busybox/json?manifests=1&platform={arm}"))[0] == 400
    for wrong in ("linux/arm64", "[]", '{"os":"linux"}', '{"os":3,"architecture":"x"}', "[" * 9000):
        status, answer = await node.call("GET", "/images/busybox/json", params={"platform": wrong})
        assert (status, answer["message"][:25]) == (400, "failed to parse platform:")


async def test_prune(node: Node) -> None:
    assert (await node.call("POST", "/images/prune"))[1] == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    kept = {"filters": '{"dangling":["false"],"label!":["made-by"]}'}
    assert (await node.call("POST", "/images/prune", params=kept))[1]["SpaceReclaimed"] == 0
    _, pruned = await node.call("POST", "/images/prune", params={"filters": '{"dangling":{"false":true}}'})
    assert pruned["SpaceReclaimed"] == 1234567
    assert pruned["ImagesDeleted"][0] == {"Untagged": "busybox:latest"}
    assert [(one.action, one.attributes.get("reclaimed")) for one in node.bus.past()[-3:]] == [
        ("untag", None), ("delete", None), ("prune", "1234567")]
    for filters in ('{"x":["y"]}', '{"dangling":["perhaps"]}', '{"until":["1h","2h"]}'):
        assert (await node.call("POST", "/images/prune", params={"filters": filters}))[0] == 400


async def test_an_image_in_use_is_not_pruned(node: Node) -> None:
    await make(node, "sleep")
    _, pruned = await node.call("POST", "/images/prune", params={"filters": '{"dangling":["false"]}'})
    assert pruned == {"ImagesDeleted": None, "SpaceReclaimed": 0}


async def test_distribution(node: Node) -> None:
    auth = header({"username": "u", "password": "p"})
    status, found = await node.call("GET", "/distribution/127.0.0.1:5000/a/b:1/json", headers={"X-Registry-Auth": auth})
    assert status == 200
    assert found["Descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [one["architecture"] for one in found["Platforms"]] == ["amd64", "arm64"]
    assert node.images.credentials == [Credentials("u", "p")]
    assert (await node.call("GET", "/distribution/nothere/json"))[0] == 404
    assert (await node.call("GET", "/distribution/UP/json"))[0] == 400


async def test_events(node: Node) -> None:
    container = await make(node, "echo", "x")
    params = {"filters": json.dumps({"type": ["container"], "event": ["start", "die"]})}
    async with node.http.get("http://node/events", params=params) as answer:
        await node.call("POST", f"/containers/{container}/start")
        start = json.loads(await asyncio.wait_for(answer.content.readline(), 5))
        die = json.loads(await asyncio.wait_for(answer.content.readline(), 5))
    assert (start["Type"], start["Action"], start["id"]) == ("container", "start", container)
    assert die["Actor"]["Attributes"]["exitCode"] == "0"
    assert die["timeNano"] // 10**9 == die["time"]


async def test_past_events(node: Node) -> None:
    for second in (1, 2, 3):
        node.bus.publish(Event("container", "start", f"c{second}", {}, second * 10**9))
    async with node.http.get("http://node/events?since=2&until=3") as answer:
        assert [event["id"] for event in lines(await answer.text())] == ["c2", "c3"]
    assert (await node.call("GET", "/events?since=3&until=2"))[0] == 400
    assert (await node.call("GET", "/events", params={"filters": '{"x":["y"]}'}))[0] == 400


async def test_events_until(node: Node) -> None:
    async with node.http.get("http://node/events", params={"until": "2000-01-01T00:00:00Z"}) as answer:
        assert await answer.text() == ""


def test_bars() -> None:
    assert bar(0, 100) == "[>" + " " * 50 + "]       0B/100B"
    assert bar(50, 100) == "[" + "=" * 25 + ">" + " " * 25 + "]      50B/100B"
    assert bar(200, 100).startswith("[" + "=" * 50 + ">]")
