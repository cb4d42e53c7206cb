"""What may be done, and the words for it in policies and in tokens."""

from collections.abc import Iterable
from enum import Enum

from ocispec.errors import InvalidArgument


class Action(Enum):
    """What may be done to a repository; LIST is asked of the registry as a whole (catalog, search), ADMIN of both."""

    PULL = "pull"
    PUSH = "push"
    OVERWRITE = "overwrite"
    """Making an existing tag name something else; PUSH alone only adds."""
    DELETE = "delete"
    ADMIN = "admin"
    LIST = "list"


WORDS: dict[str, frozenset[Action]] = {
    "pull": frozenset({Action.PULL}),
    "create": frozenset({Action.PUSH}),
    "push": frozenset({Action.PUSH, Action.OVERWRITE}),
    "delete": frozenset({Action.DELETE}),
    "admin": frozenset({Action.PULL, Action.PUSH, Action.OVERWRITE, Action.DELETE, Action.ADMIN}),
}
"""The words of policies. `create` is a push that may not move an existing tag."""

GRANTING: dict[Action, frozenset[str]] = {
    action: frozenset({"*", *(word for word, actions in WORDS.items() if action in actions)}) for action in Action}
"""Which words cover an action; a token's `*` is everything."""


class InvalidActions(InvalidArgument):
    """A word is no action."""


def parse_words(words: Iterable[str]) -> frozenset[str]:
    """Checked words of policies. Raises InvalidActions."""
    found = frozenset(word.strip() for word in words if word.strip())
    unknown = sorted(found - set(WORDS))
    if unknown:
        raise InvalidActions(f"unknown action: {unknown[0][:50]!r} (want {', '.join(WORDS)})")
    return found


def actions_of(words: Iterable[str]) -> frozenset[Action]:
    return frozenset(action for word in words for action in WORDS[word])
