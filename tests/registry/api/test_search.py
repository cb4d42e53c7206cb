"""What docker search asks. The real clients do it in the node's tests; here is the shape."""

import pytest

RESULT = {"name", "description", "star_count", "is_official", "is_automated", "is_trusted"}


async def test_ping(api) -> None:
    async with api.get("/v1/_ping") as answer:
        assert answer.status == 200
        assert answer.headers["X-Docker-Registry-Standalone"] == "true"
        assert await answer.json() == {"standalone": True}


async def test_search(api) -> None:
    for name in ("tools/alpine", "alpine", "alpine-extra", "other"):
        await api.image("v1", "v2", repo=name)
    async with api.get("/v1/search?q=alpine&n=2") as answer:
        found = await answer.json()
    assert {key: value for key, value in found.items() if key != "results"} == {
        "query": "alpine", "num_pages": 2, "num_results": 3, "page": 1, "page_size": 2}
    assert found["results"][0]["name"] == "alpine"
    assert all(set(item) == RESULT for item in found["results"])
    assert found["results"][0]["description"] == "2 tags"
    async with api.get("/v1/search?q=alpine&n=2&page=2") as answer:
        second = await answer.json()
    names = {item["name"] for item in found["results"] + second["results"]}
    assert names == {"tools/alpine", "alpine", "alpine-extra"}


@pytest.mark.parametrize("term", ["nothing", "%25", "_", "'; DROP TABLE repositories; --", "x" * 5000])
async def test_terms_are_text_and_nothing_else(api, term) -> None:
    await api.image("v1", repo="alpine")
    async with api.get("/v1/search", params={"q": term}) as answer:
        assert (answer.status, (await answer.json())["results"]) == (200, [])


async def test_no_term_finds_all(api) -> None:
    await api.image("v1", repo="alpine")
    for query in ("", "?q=", "?q=&n=&page="):
        async with api.get(f"/v1/search{query}") as answer:
            assert [item["name"] for item in (await answer.json())["results"]] == ["alpine"]


@pytest.mark.parametrize("query", ["n=x", "page=-1", "n=99999999999", "page=1.5"])
async def test_bad_counts(api, refused, query) -> None:
    await refused(api.get(f"/v1/search?q=a&{query}"), 400, "PAGINATION_NUMBER_INVALID")
