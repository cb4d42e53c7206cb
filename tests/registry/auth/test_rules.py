"""Decisions from rules."""

import pytest

from ocispec.reference import RepositoryName
from registry.auth.actions import Action, InvalidActions, parse_words
from registry.auth.patterns import Pattern
from registry.auth.principal import ANONYMOUS, Grant, Kind, Principal
from registry.auth.rules import Rule, RuleSet, holds, permits

ANN, BOB, ROOT = Principal("ann"), Principal("bob", groups=frozenset({"dev"})), Principal("root", admin=True)


def rules(*lines: tuple[str, str, str]) -> RuleSet:
    return RuleSet(Rule(Pattern.parse(pattern), subject, parse_words(words.split(",")))
                   for pattern, subject, words in lines)


def name(text: str) -> RepositoryName:
    return RepositoryName.parse(text)


RULES = rules(("team/**", "user:ann", "pull,push"), ("team/**", "group:dev", "pull"), ("team/secret/**", "user:eve", "pull"),
              ("public/**", "anonymous", "pull"), ("public/**", "authenticated", "create"), ("drop/*", "robot:ci", "create"))


@pytest.mark.parametrize(("who", "action", "where", "may"), [
    (ANN, Action.PUSH, "team/a", True), (ANN, Action.OVERWRITE, "team/a/b", True), (ANN, Action.DELETE, "team/a", False),
    (ANN, Action.PULL, "team/secret/a", False),  # the more specific pattern decides alone
    (BOB, Action.PULL, "team/a", True), (BOB, Action.PUSH, "team/a", False),
    (ANONYMOUS, Action.PULL, "public/a", True), (ANONYMOUS, Action.PUSH, "public/a", False),
    (ANN, Action.PULL, "public/a", True),  # whoever is known may what strangers may
    (ANN, Action.PUSH, "public/a", True), (ANN, Action.OVERWRITE, "public/a", False),
    (ANONYMOUS, Action.PULL, "other", False), (ANN, Action.PULL, "other", False),
    (ROOT, Action.DELETE, "other", True), (ROOT, Action.ADMIN, "other", True),
    (Principal("ci", Kind.ROBOT), Action.PUSH, "drop/x", True),
    (Principal("ci"), Action.PUSH, "drop/x", False),  # a user of a robot's name is not the robot
    (Principal("eve"), Action.PULL, "team/secret/x/y", True),
])
def test_decisions(who, action, where, may) -> None:
    assert RULES.allows(who, action, name(where)) is may


def scoped(*grants: tuple[str, str], **more) -> Principal:
    made = tuple(Grant("repository", pattern, frozenset(words.split(","))) for pattern, words in grants)
    return Principal("ci", Kind.ROBOT, scope=made, **more)


@pytest.mark.parametrize(("who", "action", "where", "may"), [
    (scoped(("any/*", "pull,push")), Action.PUSH, "any/x", True),  # nobody's robot: the scope is all there is
    (scoped(("any/*", "create")), Action.OVERWRITE, "any/x", False),
    (scoped(("team/**", "pull,push"), owner="ann"), Action.PUSH, "team/a", True),
    (scoped(("**", "admin"), owner="ann"), Action.DELETE, "team/a", False),  # no more than its owner
    (scoped(("team/a", "pull"), owner="ann"), Action.PULL, "team/b", False),  # no more than its scope
    (scoped(("**", "pull,push"), groups=frozenset({"dev"})), Action.PUSH, "team/a", False),
    (scoped(("team/a", "pull"), owner="root", admin=True), Action.PULL, "team/b", False),
    (scoped(("team/a", "pull")), Action.PULL, "public/a", True),  # what strangers may, a robot may
    (scoped(("team/a", "pull,push")), Action.PUSH, "public/a", False),
])
def test_robots(who, action, where, may) -> None:
    assert RULES.allows(who, action, name(where)) is may
    assert not who.administers


def test_a_bearer_token_is_limited_to_its_names_and_the_rules() -> None:
    token = Principal("ann", grants=(Grant("repository", "team/a", frozenset({"pull", "push"})),
                                     Grant("repository", "other", frozenset({"pull"}))))
    assert permits(RULES, token, Action.PUSH, name("team/a"))
    assert not permits(RULES, token, Action.PULL, name("team/b"))
    assert holds(RULES, token, Action.PULL, name("team/b"))
    assert not permits(RULES, token, Action.PULL, name("other"))  # the rules changed since it was issued
    assert not permits(RULES, token, Action.LIST, None)
    assert permits(RULES, Principal("ann", grants=(Grant("registry", "catalog", frozenset({"*"})),)), Action.LIST, None)
    # Names in a token are names, not patterns.
    assert not permits(RULES, Principal("ann", grants=(Grant("repository", "team/*", frozenset({"*"})),)), Action.PULL,
                       name("team/a"))


def test_another_issuers_token_grants_by_itself() -> None:
    token = Principal("x", Kind.EXTERNAL, grants=(Grant("repository", "far/a", frozenset({"pull"})),))
    assert permits(RULES, token, Action.PULL, name("far/a"))
    assert not permits(RULES, token, Action.PULL, name("public/a"))


def test_another_issuers_token_does_not_administer_the_registry() -> None:
    token = Principal("x", Kind.EXTERNAL, grants=(Grant("registry", "catalog", frozenset({"*"})),))
    assert permits(RULES, token, Action.LIST, None)
    assert not permits(RULES, token, Action.ADMIN, None)


def test_what_lists_look_at() -> None:
    assert [pattern.text for pattern in RULES.shown(ANONYMOUS).within] == ["public/**"]
    shown = RULES.shown(ANN)
    assert {pattern.text for pattern in shown.within} == {"team/**", "public/**"}
    assert shown.hidden == ("team/secret",)
    opened = rules(("a/**", "user:eve", "pull"), ("a/b/**", "anonymous", "pull"))
    assert opened.shown(ANONYMOUS).hidden == ()  # something below is shown after all


def test_lists_are_for_who_may_pull_something() -> None:
    assert holds(RULES, ANONYMOUS, Action.LIST, None)
    assert not holds(rules(("a", "user:ann", "pull")), ANONYMOUS, Action.LIST, None)
    assert not holds(RULES, ANN, Action.ADMIN, None)
    assert holds(RULES, ROOT, Action.ADMIN, None)


def test_words() -> None:
    assert parse_words([" pull", "push", ""]) == {"pull", "push"}
    with pytest.raises(InvalidActions, match="'write'"):
        parse_words(["pull", "write"])
