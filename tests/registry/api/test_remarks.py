"""`Warning` headers: their form, and when they come."""

import json
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ocispec import mediatype
from ocispec.digest import Digest
from registry.api.remarks import MAX_BYTES, header
from registry.settings import ManifestSettings

FORM = re.compile(r'299 - "(?:[ !#-\[\]-~]|\\["\\])*"')
ABSENT = Digest.of(b"absent")


@given(st.text(max_size=100) | st.text(alphabet='\\"a', max_size=30).map(lambda text: text * 300))
def test_any_text_makes_a_header(text: str) -> None:
    value = header(text)
    assert FORM.fullmatch(value)
    assert len(value) <= MAX_BYTES


async def push(api, **fields) -> list[str]:
    raw = await api.document(**fields)
    async with api.manifest("v1", raw) as answer:
        assert answer.status == 201, await answer.text()
        return answer.headers.getall("Warning", [])


async def test_nothing_to_say(api) -> None:
    assert await push(api) == []
    async with api.get(f"/v2/{api.repo}/manifests/v1") as answer:
        assert "Warning" not in answer.headers


async def test_an_absent_subject(api) -> None:
    there = await api.image("subject")
    at = {"mediaType": mediatype.OCI_MANIFEST, "size": 3}
    assert await push(api, subject={**at, "digest": str(there)}) == []
    (said,) = await push(api, subject={**at, "digest": str(ABSENT)})
    assert f"subject {ABSENT} is not in this repository" in said


async def test_absent_parts(serve, settings) -> None:
    sparse = ManifestSettings(require_layers=False, require_platforms="none")
    async with serve(replace(settings, manifests=sparse)) as api:
        assert await push(api) == []
        document = json.loads(await api.document())
        document["layers"].append({"mediaType": mediatype.OCI_LAYER, "digest": str(ABSENT), "size": 1})
        children = [{"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(b"%d" % number)), "size": 1}
                    for number in range(5)]
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children}
        for raw, says in ((document, f"without 1 of its parts: {ABSENT}\""), (index, "without 5 of its parts: ")):
            async with api.manifest("v1", json.dumps(raw).encode(), kind=raw["mediaType"]) as answer:
                assert answer.status == 201
                (said,) = answer.headers.getall("Warning")
                assert says in said


async def test_deprecated_layers(api) -> None:
    layer = {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": str(ABSENT), "size": 1}
    (said,) = await push(api, layers=[layer])
    assert "deprecated" in said
