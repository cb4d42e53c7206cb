"""Regular expressions of clients, which must not cost exponential time: Python's do where Go's cannot, and they are
matched where everybody waits."""

import re

MAX_PATTERN = 512
MAX_TEXT = 256
"""What is longer is not what somebody looks for with a pattern; a pattern sees the beginning only."""


def wrong_with(pattern: str) -> str:
    """Why it is not taken, or nothing. Only those are whose cost is bounded by their form: repeated groups and chains
    of repeats are not."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    # What is escaped is one letter; what follows may repeat it.
    repeats = len(re.findall(r"[*+?{]", re.sub(r"\\.", "x", pattern, flags=re.DOTALL)))
    allowed = 0 if "(" in pattern else 2 if pattern.startswith("^") else 1
    if repeats > allowed or len(pattern) > MAX_PATTERN:
        return "this regular expression is too complex"
    return ""


def found(pattern: str, text: str) -> bool:
    return re.search(pattern, text[:MAX_TEXT]) is not None
