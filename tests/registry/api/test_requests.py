"""Every request has a name, in its answer and in what is recorded of it."""

import pytest

from registry.api.requests import RequestIds
from storage.metadata import events
from storage.metadata.events import Wanted


@pytest.mark.parametrize("path", ["/v2/", "/healthz", "/nowhere", "/v2/team/app/manifests/v1", "/v2/a/tags/list"])
async def test_an_answer_bears_the_name_that_came(api, path) -> None:
    await api.image("v1")
    for _ in range(2):  # the second is answered from memory
        async with api.get(path, headers={"X-Request-Id": "lb-7/x:1"}) as answer:
            assert answer.headers.getall("X-Request-Id") == ["lb-7/x:1"]
        async with api.get(path) as answer:
            assert answer.headers["X-Request-Id"]


async def test_a_blob_too(api, noise) -> None:
    data = noise(300_000)
    digest = await api.blob(data)
    async with api.get(f"/v2/{api.repo}/blobs/{digest}", headers={"X-Request-Id": "mine"}) as answer:
        assert await answer.read() == data
        assert answer.headers["X-Request-Id"] == "mine"


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, 'a"b', "ä", "a\nb", None])
def test_a_name_that_could_do_harm_is_not_taken(given) -> None:
    ids = RequestIds()
    assert ids.name(given) != given
    assert ids.name(given) != ids.name(given)


async def test_events_say_who_asked(api) -> None:
    raw = await api.document()
    headers = {"X-Request-Id": "push-1", "User-Agent": "test/1",
               "Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    async with api.put(f"/v2/{api.repo}/manifests/v1", data=raw, headers=headers) as answer:
        assert answer.status == 201
    async with api.registry.content.tags._database.read() as tx:
        (logged,) = await events.latest(tx, Wanted(), 1)
    origin = logged.event.origin
    assert (origin.request_id, origin.agent, origin.method, origin.remote) == ("push-1", "test/1", "PUT", "127.0.0.1")
    assert origin.host.startswith("127.0.0.1:")
    assert str(logged.event.tag) == "v1"
