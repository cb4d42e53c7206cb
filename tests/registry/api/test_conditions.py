"""Tags written only when they still name what the client believes."""

import asyncio

import pytest

from ocispec.digest import Digest


async def push(api, raw: bytes, reference: str = "v1", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    async with api.put(f"/v2/{api.repo}/manifests/{reference}", data=raw, headers={**kind, **named}) as answer:
        if answer.status == 412:
            assert (await answer.json())["errors"][0]["code"] == "CONFLICT"
        return answer.status


async def named(api, tag: str = "v1") -> str:
    async with api.head(f"/v2/{api.repo}/manifests/{tag}") as answer:
        return answer.headers.get("ETag", "")


async def test_a_tag_is_only_made_or_only_moved(api) -> None:
    first, second = await api.document(layer=b"one"), await api.document(layer=b"two")
    assert await push(api, first, If_Match="*") == 412
    assert await push(api, first, If_None_Match="*") == 201
    assert await push(api, second, If_None_Match="*") == 412
    etag = await named(api)
    assert etag == f'"{Digest.of(first)}"'
    assert await push(api, second, If_Match='"sha256:other"') == 412
    assert await push(api, second, If_Match=f"W/{etag}") == 412  # by strong comparison, which If-Match wants
    assert await push(api, second, If_None_Match=etag) == 412
    assert await named(api) == etag
    assert await push(api, second, If_Match=f'"x", {etag}') == 201
    assert await push(api, first, If_Match=etag) == 412
    assert await push(api, first, str(Digest.of(first)) + "?tag=v1&tag=v2", If_None_Match="*") == 412
    assert await named(api, "v2") == ""  # all or nothing


@pytest.mark.parametrize("value", ["", "sha256:abc", '"a" "b', '"', ",".join(['"a"'] * 101)])
async def test_a_condition_that_cannot_be_read_is_not_ignored(api, value) -> None:
    assert await push(api, await api.document(), If_Match=value) == 400


async def test_deleting_what_has_moved(api) -> None:
    await api.image("v1", layer=b"one")
    etag = await named(api)
    await api.image("v1", layer=b"two")
    for condition, status in ((etag, 412), (await named(api), 202)):
        async with api.delete(f"/v2/{api.repo}/manifests/v1", headers={"If-Match": condition}) as answer:
            assert answer.status == status


async def test_of_many_at_once_one_wins(api) -> None:
    documents = [await api.document(layer=b"%d" % number) for number in range(5)]
    statuses = await asyncio.gather(*(push(api, raw, If_None_Match="*") for raw in documents))
    assert sorted(statuses) == [201, 412, 412, 412, 412]
