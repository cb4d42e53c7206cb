"""Names of containers: what is allowed, and one made up when the user gives none."""

import re
import secrets
from collections.abc import Container as Collection

from node.containers.errors import InvalidName

ALLOWED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
MAX_LENGTH = 255

# The first half is weather and temper, the second people of harbours, dikes, ships and lighthouses.
_FIRST_WORDS = """
able alert amber ample awake balmy bold brave breezy bright brisk broad calm candid clear clever cloudy cool
cosy crisp daring deft eager early earnest easy even fair fast fine firm fleet fond frank fresh gentle glad
gleaming golden grand happy hardy hasty hazy hearty humble idle jolly keen kind late lively long loyal lucky
mellow merry mild misty modest neat nimble noble patient placid plain plucky polite prompt proud quick quiet
rapid ready rosy rugged salty serene sharp shining silent silver simple sleepy snug sober solid spry steady
still stout stormy sturdy sunny sure swift tame tender tidy tranquil trim true upbeat valiant vivid warm wary
wide windy wise witty woolly young zesty
"""

_SECOND_WORDS = """
amundsen anning baret barents beaufort bering blackburn bowditch brunel caboto cook coronelli cousteau darling
drake drebbel earle eads elcano eratosthenes fitzroy franklin fresnel fulton galathea gama gilbert gorter
grotius halley harrison hawkins henson heyerdahl hopper hudson huygens janszoon kaplan kircher kuroshio lely
leeghwater lindbergh lovelace magellan mahan marconi maury mercator merian mulholland munk nansen nelson
newcomen ocampo pytheas rennell ross rosscarbery saussure scoresby shackleton simons sirena slocum smeaton
somerville stevenson stevin sverdrup tasman telford tharp vancouver vermuyden vierlingh walker watt wegener
winstanley xuhe zheng
"""
FIRST = tuple(_FIRST_WORDS.split())
SECOND = tuple(_SECOND_WORDS.split())


def check(name: str) -> str:
    """The name without the slash Docker puts before it. Raises InvalidName."""
    bare = name.removeprefix("/")
    if not ALLOWED.fullmatch(bare) or len(bare) > MAX_LENGTH:
        raise InvalidName(bare)
    return bare


def make_up(taken: Collection[str]) -> str:
    """A name that is not taken now; whoever claims it still has to find out whether it is."""
    for _ in range(6):
        name = f"{secrets.choice(FIRST)}_{secrets.choice(SECOND)}"
        if name not in taken:
            return name
    return f"{secrets.choice(FIRST)}_{secrets.choice(SECOND)}_{secrets.token_hex(3)}"
