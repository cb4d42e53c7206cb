"""Requests that two readers would cut apart differently: refused, and never answered twice.

Behind a proxy, what the proxy took for a body and we for a request would be somebody else's request.
"""

import contextlib
import re

import pytest

SMUGGLED = "GET /v2/smuggled/manifests/x HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = "PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n"

AMBIGUOUS = {
    "length and chunked": f"{PUT}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": f"{PUT}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": f"{PUT}Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n",
    "the same length twice": f"{PUT}Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": f"{PUT}Content-Length: 0, 0\r\n\r\n",
    "a signed length": f"{PUT}Content-Length: +0\r\n\r\n",
    "a length in hex": f"{PUT}Content-Length: 0x0\r\n\r\n",
    "a length with an underscore": f"{PUT}Content-Length: 1_0\r\n\r\n",
    "a huge length": f"{PUT}Content-Length: {'9' * 40}\r\n\r\n",
    "an empty length": f"{PUT}Content-Length:\r\n\r\n",
    "another coding": f"{PUT}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": f"{PUT}Transfer-Encoding: identity\r\n\r\n",
    "chunked not last": f"{PUT}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": f"{PUT}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab before chunked": f"{PUT}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": f"{PUT}Content-Length : 0\r\n\r\n",
    "a folded header": f"{PUT}X: y\r\n Content-Length: 0\r\n\r\n",
    "a bare newline in the head": f"{PUT}X: y\nContent-Length: 0\r\n\r\n",
    "bare newlines": f"{PUT}Content-Length: 0\n\n",
    "a bare return": f"{PUT}X: y\rContent-Length: 0\r\n\r\n",
    "a null in a header": f"{PUT}X: y\x00z\r\nContent-Length: 0\r\n\r\n",
    "a null in the path": "GET /v2/a\x00b/manifests/c HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": "GET /v2/ HTTP/1.1 /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "no name": "GET /v2/ HTTP/1.1\r\n: x\r\n\r\n",
    "a name with a space": "GET /v2/ HTTP/1.1\r\nHost x: y\r\n\r\n",
    "a header before the first line": "X: y\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a chunk size in prefixed hex": f"{PUT}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a signed chunk size": f"{PUT}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a huge chunk size": f"{PUT}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n\r\n",
    "a chunk longer than it says": f"{PUT}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a chunk ended by a bare newline": f"{PUT}Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
}


@pytest.mark.parametrize("text", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_could_be_cut_apart_differently(api, text) -> None:
    """Refused, the connection closed, and what followed not taken for a request."""
    async with api.raw() as raw:
        raw.send((text + SMUGGLED).encode("latin-1"))
        answer = await raw.ended()
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert len(re.findall(rb"HTTP/1\.[01] [0-9]{3} ", answer)) == 1, answer
    async with api.get("/v2/") as after:
        assert after.status == 200


@pytest.mark.parametrize("together", [True, False])
async def test_more_than_was_announced_is_another_request(api, together) -> None:
    """The body ends where it says; what follows is read as a request, is none, and ends the connection."""
    async with api.raw() as raw:
        first = f"{PUT}Content-Length: 2\r\n\r\n{{}}"
        raw.send(first + ("garbage\r\n\r\n" if together else ""))
        assert (await raw.answer())[0] == 400  # no manifest
        if not together:
            raw.send("garbage\r\n\r\n")
            assert (await raw.ended()).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert await raw.ended() == b""


@pytest.mark.parametrize("count", [1, 200])
async def test_pipelined_requests_are_answered_in_their_order(api, count) -> None:
    digest = await api.image("v1")
    one = f"GET /v2/a/manifests/none HTTP/1.1\r\nHost: x\r\n\r\nHEAD /v2/{api.repo}/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with api.raw() as raw:
        raw.send(one * count)
        for _ in range(count):
            status, _, body = await raw.answer()
            assert (status, b"MANIFEST_UNKNOWN" in body) == (404, True)
            status, headers = await raw.head()
            assert (status, headers["docker-content-digest"]) == (200, str(digest))


@pytest.mark.parametrize("head", [
    "".join(f"X-{number}: y\r\n" for number in range(5000)), "X: y\r\n" * 100_000, f"{'x' * 100_000}: y\r\n",
    f"Cookie: {'x' * 1_000_000}\r\n", "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(5000)) + "\r\n",
], ids=["many", "very many", "long name", "long value", "long range"])
async def test_floods_of_headers(api, head) -> None:
    async with api.raw() as raw:
        raw.send(f"GET /v2/ HTTP/1.1\r\nHost: x\r\n{head}\r\n")
        with contextlib.suppress(ConnectionResetError):  # it closes without reading to the end
            assert (await raw.ended()).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    async with api.get("/v2/") as after:
        assert after.status == 200


async def test_many_ranges_cost_nothing(api) -> None:
    """Several ranges are not served (RFC 9110 section 14.2 lets us): the whole blob, once, whatever they overlap."""
    digest = await api.blob(b"0123456789")
    ranges = "bytes=" + ",".join(["0-"] * 1000)
    async with api.get(f"/v2/{api.repo}/blobs/{digest}", headers={"Range": ranges}) as answer:
        assert (answer.status, await answer.read()) == (200, b"0123456789")
