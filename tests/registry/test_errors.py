import re

import pytest

from ocispec import errors as kinds
from ocispec.errors import SeawallError
from registry.errors import ANSWERS, INTERNAL, answer_for
from storage.errors import BlobUnknown


@pytest.mark.parametrize("kind", [value for value in vars(kinds).values()
                                  if isinstance(value, type) and issubclass(value, SeawallError)])
def test_every_kind_has_an_answer(kind: type[SeawallError]) -> None:
    assert kind in ANSWERS


def test_the_nearest_ancestor_decides() -> None:
    class Special(BlobUnknown):
        def __init__(self) -> None:
            SeawallError.__init__(self, "special")

    assert answer_for(Special()) is ANSWERS[BlobUnknown]
    assert answer_for(SeawallError("what")) is INTERNAL


def test_codes_are_words_of_the_specification_form() -> None:
    assert all(re.fullmatch(r"[A-Z_]+", answer.code) and 400 <= answer.status < 600 for answer in ANSWERS.values())
