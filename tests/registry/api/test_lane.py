"""The fast lane answers as the ordinary way does."""

import pytest

from registry.api.lane import MAX_PATHS, ManifestLane
from registry.api.rates import Rates
from registry.api.reached import Reached
from registry.settings import RateSettings


class Counting(ManifestLane):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.taken = 0

    def answer(self, request):
        answer = super().answer(request)
        self.taken += answer is not None
        return answer


@pytest.fixture
def lanes(monkeypatch) -> list[Counting]:
    made: list[Counting] = []

    def make(*args) -> Counting:
        made.append(Counting(*args))
        return made[-1]

    monkeypatch.setattr("registry.api.server.ManifestLane", make)
    return made


async def exchange(api, method: str, path: str, *headers: str):
    async with api.raw() as raw:
        raw.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]))
        status, got = await raw.head()
        body = await raw.reader.readexactly(int(got["content-length"])) if method == "GET" else b""
        got.pop("date")
        assert got.pop("x-request-id")
        return status, got, body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_answers_as_the_ordinary_way(lanes, api, method) -> None:
    digest = await api.image("v1")
    for reference in ("v1", digest, str(digest).replace(":", "%3A")):
        path = f"/v2/{api.repo}/manifests/{reference}"
        await exchange(api, method, path)  # now it is in memory
        before = lanes[0].taken
        fast = await exchange(api, method, path)
        assert lanes[0].taken == before + 1
        slow = await exchange(api, method, path, 'If-None-Match: "another"')
        assert lanes[0].taken == before + 1
        assert fast == slow


async def test_it_sees_what_changed(lanes, api, refused) -> None:
    path = f"/v2/{api.repo}/manifests/v1"
    first = await api.image("v1", layer=b"1")
    for _ in range(3):
        async with api.get(path) as answer:
            assert answer.headers["Docker-Content-Digest"] == str(first)
    assert lanes[0].taken
    second = await api.image("v1", layer=b"2")
    for _ in range(3):
        async with api.get(path) as answer:
            assert answer.headers["Docker-Content-Digest"] == str(second)
    async with api.delete(path):
        pass
    for _ in range(3):
        await refused(api.get(path), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("head", [
    "GET {} HTTP/1.0\r\n\r\n", "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET {}?ns=docker.io HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET http://registry{} HTTP/1.1\r\nHost: x\r\n\r\n",
])
async def test_what_it_does_not_know_goes_the_ordinary_way(lanes, api, head) -> None:
    await api.image("v1")
    path = f"/v2/{api.repo}/manifests/v1"
    async with api.get(path):
        pass
    before = lanes[0].taken
    async with api.raw() as raw:
        raw.send(head.format(path))
        status, _, body = await raw.answer()
    assert (status, lanes[0].taken) == (200, before)
    assert body


async def test_pipelined_requests_are_answered_in_order(api) -> None:
    await api.image("v1")
    path = f"/v2/{api.repo}/manifests/v1"
    async with api.raw() as raw:
        raw.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\nHEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"
                 f"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
        first = await raw.answer()
        assert (await raw.head())[1]["content-length"] == str(len(first[2]))
        assert (await raw.answer())[2] == b"{}"
        assert (await raw.answer())[2] == first[2]


async def test_strangers_cannot_fill_its_memory(api) -> None:
    lane = ManifestLane(api.registry.content.manifests, api.registry.content.pulls, api.registry.access, Reached(),
                        Rates(RateSettings()))
    for number in range(MAX_PATHS + 10):
        lane._learn(f"/v2/a/manifests/tag{number}")
    assert len(lane._paths) <= MAX_PATHS
    lane._learn("/v2/a/manifests/" + "x" * 1000)
    lane._learn("/v2/a/manifests/-bad")
    assert all(len(path) < 100 for path in lane._paths)


async def test_it_asks_whether_the_caller_may(api, monkeypatch) -> None:
    class Closed:
        def allows(self, principal, action, repository) -> bool:
            return False

        def current(self) -> bool:
            return True

    await api.image("v1")
    path = f"/v2/{api.repo}/manifests/v1"
    async with api.get(path):
        pass
    monkeypatch.setattr(api.registry.access, "_policy", Closed())
    async with api.get(path) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"]
