"""The mode of a log driver: what it does anyway is taken, the other one is refused by name."""

import pytest

from node.containers.logdrivers import check
from node.containers.model import LogSpec
from ocispec.errors import Unimplemented


@pytest.mark.parametrize(
    ("driver", "mode"), [("json-file", "blocking"), ("local", "blocking"), ("journald", "non-blocking")]
)
def test_what_a_driver_does_anyway(driver: str, mode: str) -> None:
    check(LogSpec(driver, {"mode": mode}))


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"mode": "non-blocking"}, "mode=non-blocking is not supported yet for the json-file"),
        ("local", {"mode": "non-blocking"}, "mode=non-blocking is not supported yet for the local"),
        ("syslog", {"mode": "blocking"}, "mode=blocking is not supported yet for the syslog"),
        ("syslog", {"mode": "non-blocking", "max-buffer-size": "4m"}, "max-buffer-size is not supported yet"),
    ],
)
def test_what_it_does_not_do_is_refused(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(Unimplemented, match=message):
        check(LogSpec(driver, options))
