"""Which names a pattern matches, and which of two is more specific."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.reference import RepositoryName
from registry.auth.patterns import InvalidPattern, Pattern

SEGMENTS = st.sampled_from(["a", "b", "team", "app", "x-1", "*", "?", "a*", "**"])


@pytest.mark.parametrize(("pattern", "yes", "no"), [
    ("team/app", ["team/app"], ["team/apps", "team", "team/app/x", "xteam/app"]),
    ("team/*", ["team/app", "team/x.y_z"], ["team", "team/app/x"]),
    ("team/**", ["team", "team/app", "team/app/x"], ["teams", "team-x/app"]),
    ("**", ["a", "a/b/c"], []),
    ("**/app", ["app", "x/app", "x/y/app"], ["xapp", "app/x"]),
    ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a", "z", "a/b/zz"]),
    ("team-?/a*", ["team-1/a", "team-2/abc"], ["team/a", "team-12/a", "team-1/b", "team-1/a/b"]),
    ("a.c", ["a.c"], ["abc"]),
])
def test_matching(pattern, yes, no) -> None:
    made = Pattern.parse(pattern)
    assert [name for name in yes if not made.matches(RepositoryName.parse(name))] == []
    assert [name for name in no if made.matches(RepositoryName.parse(name))] == []


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a//b", "A", "a b", "a%", "***", "a**", "*a*b*", "**/**", "a'b",
                                  "**/a/**/b/**", "a" * 256, "a\n", "ä", "a:b", "../a/\\"])
def test_what_is_no_pattern(text) -> None:
    with pytest.raises(InvalidPattern):
        Pattern.parse(text)


def test_the_more_specific_comes_first() -> None:
    texts = ["team/app", "team/a*", "team/*", "team", "team/**/x", "team/**", "te*/app", "*/app", "*", "**/app", "**"]
    ranked = sorted(texts, key=lambda text: Pattern.parse(text).rank, reverse=True)
    for first, second in itertools.pairwise(["team/app", "team/a*", "team/*", "team/**/x", "team/**", "te*/app", "*/app",
                                             "**/app", "**"]):
        assert ranked.index(first) < ranked.index(second), (first, second)
    assert ranked.index("team") < ranked.index("team/**")


@given(st.lists(SEGMENTS, min_size=1, max_size=5), st.lists(st.sampled_from(["a", "b", "team", "app"]), min_size=1, max_size=5))
def test_the_prefix_is_one(segments, names) -> None:
    try:
        pattern = Pattern.parse("/".join(segments))
    except InvalidPattern:
        return
    name = RepositoryName.parse("/".join(names))
    if pattern.matches(name):
        assert name.value.startswith(pattern.prefix)
    if pattern.subtree:
        assert pattern.matches(name) == (name.value == pattern.subtree or name.value.startswith(pattern.subtree + "/"))


def test_hostile_patterns_cost_little() -> None:
    name = RepositoryName("/".join(["a" * 30] * 8))
    begun = time.process_time()
    for text in ("*a*b", "**/a*a*b/**/c", "/".join(["*a*b"] * 8)):
        assert not Pattern.parse(text).matches(name)
    assert time.process_time() - begun < 0.5
