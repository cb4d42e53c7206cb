"""Names: upstream's tables of about 400 cases, and what a registry accepts in a path."""

import json

import pytest

from ocispec.reference import (
    InvalidName,
    InvalidReference,
    InvalidTag,
    Reference,
    RepositoryName,
    Tag,
    familiar_repository,
    parse_tag_or_digest,
)


@pytest.fixture(scope="module")
def normalize(shared):
    return json.loads((shared / "oci/reference/normalize.json").read_text())


@pytest.fixture(scope="module")
def grammar(shared):
    return json.loads((shared / "oci/reference/reference.json").read_text())


@pytest.fixture(scope="module")
def patterns(shared):
    return json.loads((shared / "oci/reference/regexp.json").read_text())


def test_repository_information(normalize):
    """Familiar, full and ambiguous names all come to the same place."""
    count = 0
    for case in normalize["TestParseRepositoryInfo"]:
        for key in ("FamiliarName", "FullName", "AmbiguousName"):
            if case.get(key):
                found = Reference.parse(case[key])
                assert (found.domain, found.path.value) == (case["Domain"], case["RemoteName"]), case[key]
                assert (found.familiar_name, str(found)) == (case["FamiliarName"], case["FullName"]), case[key]
                count += 1
    assert count == 48


def test_names_split_into_host_and_path(normalize):
    for case in normalize["TestNormalizedSplitHostname"]:
        found = Reference.parse(case["input"])
        assert (found.domain, found.path.value) == (case["domain"], case["path"])


def test_valid_and_invalid_names(normalize):
    """The table is a list of valid names followed by the invalid ones, which begin with a URL."""
    names = normalize["TestValidateReferenceName"]
    first_bad = names.index("https://github.com/docker/docker")
    for name in names[:first_bad]:
        assert Reference.parse(name).path.value
    for name in names[first_bad:]:
        with pytest.raises(InvalidReference):
            Reference.parse(name)


def test_remote_names(normalize):
    """Valid ones up to the first that the table's comment calls invalid."""
    names = normalize["TestValidateRemoteName"]
    verdicts = [_accepts(name) for name in names]
    first_bad = verdicts.index(False)
    assert first_bad >= 5
    assert not any(verdicts[first_bad:])


def _accepts(name: str) -> bool:
    try:
        Reference.parse(name)
    except InvalidReference:
        return False
    return True


def test_equivalents(normalize):
    """Bare digests are upstream's business of `ParseAnyReference`; ours asks for images by name there."""
    for case in normalize["TestParseAnyReference"]:
        if "/" in case["Equivalent"]:
            assert str(Reference.parse(case["Reference"])) == case["Equivalent"]


def test_docker_references_get_a_tag_when_they_have_none(normalize):
    """Upstream drops the tag of name:tag@digest here; we keep it and pull by digest."""
    for case in normalize["TestParseDockerRef"]:
        found = Reference.parse(case["input"]).with_default_tag()
        assert str(found).replace(f":{found.tag}@", "@") == case["expected"]


def test_the_parse_table(grammar):
    """Upstream's test program knows no sha512; we do."""
    checked = 0
    for case in grammar["TestReferenceParse"]:
        text = case["input"]
        if "@sha512:" in text:
            assert str(Reference.parse(text)).endswith(text)
        elif "err" in case:
            with pytest.raises(InvalidReference):
                Reference.parse(text)
        else:
            found = Reference.parse(text)
            assert (str(found.tag) if found.tag else "") == case.get("tag", "")
            assert (str(found.digest) if found.digest else "") == case.get("digest", "")
            assert case["repository"].endswith(found.path.value.removeprefix("library/"))
            checked += 1
    assert checked > 30


def test_what_parses_prints_as_something_that_parses_the_same(grammar, normalize):
    for case in grammar["TestReferenceParse"]:
        if "err" not in case:
            found = Reference.parse(case["input"])
            assert Reference.parse(str(found)) == found
            assert Reference.parse(found.familiar()) == found
            assert familiar_repository(found.repository) == found.familiar_name


def test_the_domain_table(patterns):
    """A port of six digits is refused, though upstream's pattern lets it pass: no port is that large."""
    for case in patterns["TestDomainRegexp"]:
        try:
            found = Reference.parse(f"{case['input']}/x/y").domain == case["input"]
        except InvalidReference:
            found = False
        port = case["input"].rpartition(":")[2]
        if port.isdigit() and len(port) > 5:
            continue
        if case["match"] and not set(".:[") & set(case["input"]) and case["input"] != "localhost":
            continue  # a single word is a domain to the pattern, and a path component to the normalisation
        assert found == case["match"], case


@pytest.mark.parametrize("text", [
    "", "A", "a//b", "/a", "a/", "a/../b", "..", ".", "a b", "a\n", "a" * 256, "a:b", "a@b", "a/_b", "a/b_", "a/-b",
    "a..b", "a___b", "a%2fb", "ä", "a\x00", "a?b", "a#b", "a\\b", "a.-b",
])
def test_repository_names_that_a_registry_refuses(text):
    with pytest.raises(InvalidName):
        RepositoryName.parse(text)


@pytest.mark.parametrize("text", ["a", "a/b", "a.b", "a_b", "a__b", "a-b", "a--b", "0", "a/b/c/d", "a" * 255])
def test_repository_names_that_it_accepts(text):
    assert str(RepositoryName.parse(text)) == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "a" * 129, "a b", "a/b", "a:b", "a\n", "ä", "a@b", "a%00"])
def test_tags_that_are_refused(text):
    with pytest.raises(InvalidTag):
        Tag.parse(text)


@pytest.mark.parametrize("text", ["latest", "_", "1", "A.b-c_D", "a" * 128])
def test_tags_that_are_accepted(text):
    assert str(Tag.parse(text)) == text


def test_tag_or_digest():
    assert parse_tag_or_digest("v1") == Tag("v1")
    assert str(parse_tag_or_digest("sha256:" + "0" * 64)) == "sha256:" + "0" * 64


@pytest.mark.parametrize(("text", "message"), [
    ("Uppercase", "invalid reference format: repository name (library/Uppercase) must be lowercase"),
    ("a" * 300, "repository name must not be more than 255 characters"),
    ("a:", "invalid reference format"),
    ("a b", "invalid reference format"),
])
def test_messages_are_dockers(text, message):
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.message == message
