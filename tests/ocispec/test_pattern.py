"""Patterns match what a plain reading of them says, in time that grows with the name alone."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.pattern import InvalidPattern, Pattern

texts = st.text(alphabet="ab/*?", min_size=1, max_size=10)
names = st.text(alphabet="ab/", max_size=12)


def plain(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\*\*|\*|\?|[^*?]", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part) for part in parts))


@settings(max_examples=1500, deadline=None)
@given(texts, names)
def test_it_matches_what_the_plain_reading_does(pattern, name):
    assert Pattern.parse(pattern).matches(name) == bool(plain(pattern).fullmatch(name))


@pytest.mark.parametrize(("pattern", "name", "matches"), [
    ("team/*", "team/app", True), ("team/*", "team/a/b", False), ("team/**", "team/a/b", True),
    ("team/**", "team", False), ("v?.*", "v1.2.3", True), ("v?.*", "v10.2", False), ("**", "x", True),
    ("**/app", "a/b/app", True), ("latest", "latest", True), ("latest", "latest2", False),
])
def test_examples(pattern, name, matches):
    assert Pattern.parse(pattern).matches(name) is matches


def test_many_stars_and_a_long_name_take_no_time():
    began = time.perf_counter()
    assert not Pattern.parse("*a" * 60 + "b").matches("a" * 255)
    assert not Pattern.parse("**a" * 60 + "b").matches("a/" * 127)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ["", "a" * 256, "a b", "ä", "a\n", "[a]", "a\\"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(InvalidPattern):
        Pattern.parse(text)


def test_the_more_precise_weighs_more():
    ordered = ["**", "*/app", "team/**", "team/app"]
    assert sorted(map(Pattern.parse, reversed(ordered)), key=lambda pattern: pattern.weight) == [
        *map(Pattern.parse, ordered)]
