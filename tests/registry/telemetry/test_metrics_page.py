"""docs/metrics.md shows every number there is: `SEAWALL_WRITE_DOCS=1 pytest` renews its table."""

import os
import re
from pathlib import Path

from registry.api.paths import Endpoint
from registry.telemetry.exposition import ASKED
from registry.telemetry.families import families

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_the_metrics_page() -> None:
    rows = [(f"`{family.name}`", family.kind.value, ", ".join(f"`{label.name}`" for label in family.labels), family.help)
            for family in families([endpoint.label for endpoint in Endpoint])]
    rows += [(f"`{asked.name}`", "gauge", ", ".join(f"`{label}`" for label in asked.labels), asked.help)
             for asked in ASKED]
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |",
             *(f"| {' | '.join(row)} |" for row in rows)]
    text = PAGE.read_text()
    made, times = re.subn(r"(?s)(<!-- generated: metrics -->\n).*?(<!-- end -->)",
                          lambda match: f"{match[1]}{chr(10).join(lines)}\n{match[2]}", text)
    assert times == 1
    if os.environ.get("SEAWALL_WRITE_DOCS") == "1":
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "renew it: SEAWALL_WRITE_DOCS=1 pytest tests/registry/telemetry"


def test_names_follow_prometheus_customs() -> None:
    for family in families([]):
        assert re.fullmatch(r"seawall_[a-z_]+", family.name)
        assert (family.kind.value == "counter") == family.name.endswith("_total"), family.name
        assert list(family.bounds) == sorted(set(family.bounds))
